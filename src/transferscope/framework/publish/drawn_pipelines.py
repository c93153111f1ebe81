"""Kedro-Viz as pages of a static site: without a server, and without a request to any other machine."""

from __future__ import annotations

import multiprocessing
import os
import re
import shutil
import tempfile
from concurrent.futures import ProcessPoolExecutor
from importlib.resources import files
from pathlib import Path

from transferscope.framework.viz_offline import for_this_machine


def write_pipelines(project: Path, env: str | None, folder: Path) -> None:
    """Write `index.html`, which opens from a disk as well, and the answers to what it asks for, with previews."""
    with tempfile.TemporaryDirectory() as temporary:
        # In a process of its own: the catalog that is drawn stays in it, and Kedro-Viz asks for the pipelines there.
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            pool.submit(_save_answers, project, env, temporary).result()
        for path in Path(temporary, "api").rglob("*"):
            if path.is_file():
                name = path.relative_to(Path(temporary, "api")).as_posix()
                _write(
                    folder / "api" / f"{name}.js", f"kedroVizAnswer({name!r}, {path.read_text(encoding='utf-8')});\n"
                )
    _write_page(folder)


def _save_answers(project: Path, env: str | None, folder: str) -> None:
    from fsspec import filesystem
    from kedro_viz.api.rest.responses.save_responses import save_api_responses_to_fs
    from kedro_viz.server import load_and_populate_data

    os.chdir(project)  # where Kedro-Viz looks for the status of runs
    load_and_populate_data(project, env=env, package_name="transferscope")
    save_api_responses_to_fs(folder, filesystem("file"), True)


def _write_page(folder: Path) -> None:
    """Kedro-Viz's page with its script inside, which browsers refuse to load from a disk, and without its fonts."""
    html = Path(str(files("kedro_viz"))) / "html"
    page = for_this_machine((html / "index.html").read_text(encoding="utf-8"))
    scripts = re.findall(r'(<script [^>]*src="\./([^"]+)"[^>]*></script>)', page)
    styles = re.findall(r'(<link rel="stylesheet"[^>]* href="\./([^"]+)"[^>]*>)', page)
    assert len(scripts) == len(styles) == 1, "another page than that of the Kedro-Viz that this was written for"
    offline = files("transferscope.framework.publish").joinpath("offline.js").read_text(encoding="utf-8")
    (script, source), (style, sheet) = scripts[0], styles[0]
    code = (html / source).read_text(encoding="utf-8").replace("</script", "<\\/script")
    page = page.replace(style, f'<link rel="stylesheet" href="./{sheet}">')
    page = page.replace(script, f'<script>\n{offline}</script>\n<script type="module">\n{code}</script>')
    _write(folder / "index.html", page)
    for path in ("favicon.ico", sheet):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(html / path, folder / path)


def _write(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
