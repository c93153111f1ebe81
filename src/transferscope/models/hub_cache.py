"""Names of model hubs, `hf_hub:timm/resnet18.a1_in1k`: their files in the local cache. Nothing is downloaded."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

from transferscope.system.errors import UserError

_NAME = re.compile(r"hf[_-]hub:(?P<repository>[^@]*)(@(?P<revision>.*))?", re.DOTALL)


def is_hub_name(name: str) -> bool:
    """True if a name is that of a repository of the Hugging Face hub."""
    return _NAME.fullmatch(name) is not None


def repository_of(name: str) -> str:
    """`timm/resnet18.a1_in1k` of `hf_hub:timm/resnet18.a1_in1k`."""
    return _parts(name)[0]


def _parts(name: str) -> tuple[str, str | None]:
    """The repository and the revision of a hub name."""
    match = _NAME.fullmatch(name)
    assert match is not None, name
    return match["repository"], match["revision"] or None


def cached_folder(name: str) -> Path:
    """The folder with the files of a hub name in the local cache.

    Raises UserError where they are not there, with the command that fetches them, and where the package that knows the
    cache, which comes with timm, is not installed.
    """
    if importlib.util.find_spec("huggingface_hub") is None:
        raise UserError(f"{name}: names of the hub need the package timm: pip install -e '.[timm]'")
    from huggingface_hub import snapshot_download

    repository, revision = _parts(name)
    try:
        return Path(snapshot_download(repository, revision=revision, local_files_only=True))
    except Exception as error:  # the library has a dozen errors for names, revisions and files that are not there
        raise UserError(
            f"{name} is not in the local cache: fetch it by `hf download {repository}`, or give the path of a file"
        ) from error


def local_path(path: str | Path) -> Path:
    """A path as it is; a hub name becomes the folder of its files in the local cache."""
    return cached_folder(str(path)) if is_hub_name(str(path)) else Path(path)


def cached_architecture(name: str) -> tuple[str, dict[str, Any]] | None:
    """timm's architecture of a hub name and its arguments, by the config.json in the local cache; None without one.

    Raises UserError for a config.json that names no architecture.
    """
    try:
        path = cached_folder(name) / "config.json"
    except UserError:
        return None
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_bytes())
        architecture, arguments = content["architecture"], dict(content.get("model_args") or {})
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise UserError(f"{name}: {path} names no architecture of timm: name one as model.name") from error
    return str(architecture), arguments
