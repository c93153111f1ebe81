"""Write the folder of a new study below `conf/`: a copy of another one with its comments, or an overlay on it."""

from __future__ import annotations

import re
from pathlib import Path

from transferscope.framework.overlays import EXTENDS
from transferscope.system.atomic import atomic_folder
from transferscope.system.errors import UserError
from transferscope.system.near import near_matches

BASE, LOCAL = "base", "local"

OVERLAY = """\
# Changes on top of the study `{of}`. Everything that is not written here is as it is there.
# Run it with `uv run kedro run --env {name}`.
{extends}: {of}

# Keys are those of conf/{of}/parameters.yml, for example two epochs in place of all:
# training: {{epochs: 2}}
"""

GLOBALS = "# Where everything that is computed goes.\ndata: data/{name}\n"


def copy_study(conf: Path, name: str, of: str) -> list[Path]:
    """Copy the parameters of a study, with their comments, into a new folder whose results go to `data/<name>`.

    Of base the parameters alone are copied, because its catalog lies below that of every study.

    Raises:
        UserError: The name is no name or is taken, or there is no study to copy.
    """
    source = _checked(conf, name, of)
    paths = sorted(path for path in source.rglob("*.yml") if of != BASE or path.name.startswith("parameters"))
    texts = {path.relative_to(source): path.read_text(encoding="utf-8") for path in paths}
    data = texts.pop(Path("globals.yml"), "")
    others = re.sub(r"^data:.*\n?", "", data, flags=re.MULTILINE).lstrip("\n")
    first = f"# The study `{name}`, begun as a copy of conf/{of}; run it with `uv run kedro run --env {name}`.\n"
    for path, text in texts.items():
        own = re.sub(rf"--env {of}\b", f"--env {name}", text)
        texts[path] = (first if path.name == "parameters.yml" else "") + own
    return _write(conf / name, texts | {Path("globals.yml"): GLOBALS.format(name=name) + others})


def extend_study(conf: Path, name: str, of: str) -> list[Path]:
    """Write a new folder that lays its changes over another study; errors as of `copy_study`."""
    _checked(conf, name, of)
    if of == BASE:
        raise UserError("--extends base: every study is laid over base: use --from base for a copy of its parameters")
    overlay = OVERLAY.format(name=name, of=of, extends=EXTENDS)
    return _write(conf / name, {Path("parameters.yml"): overlay, Path("globals.yml"): GLOBALS.format(name=name)})


def _checked(conf: Path, name: str, of: str) -> Path:
    """The folder of the other study."""
    known = sorted(path.name for path in conf.iterdir() if path.is_dir() and path.name != LOCAL)
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise UserError(f"the study's name '{name}': give lower-case letters, digits and _, beginning with a letter")
    if (conf / name).exists():
        raise UserError(f"{conf / name} exists: choose another name, or edit what is there")
    if of not in known:
        raise UserError(f"there is no study '{of}'{near_matches(of, known)}")
    return conf / of


def _write(folder: Path, texts: dict[Path, str]) -> list[Path]:
    with atomic_folder(folder) as written:
        for path, text in texts.items():
            (written / path).parent.mkdir(parents=True, exist_ok=True)
            (written / path).write_text(text, encoding="utf-8")
    return [folder / path for path in sorted(texts)]
