"""Private functions of Kedro and Kedro-Viz that this project calls; `docs/architecture.md` lists all private parts.

`CHECKED_ON` names the versions on which this file was checked; after an upgrade its tests say what to look at again.
"""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.framework.hooks.manager import _create_hook_manager, _register_hooks
from kedro.framework.project import pipelines, settings
from kedro.io import AbstractDataset, CatalogProtocol, DataCatalog
from pluggy import PluginManager

if TYPE_CHECKING:
    from fastapi import FastAPI
    from kedro.validation import ValidatorSpec
    from starlette.requests import Request
    from starlette.responses import Response

CHECKED_ON = {"kedro": "1.7.0", "kedro-viz": "12.5.0"}

SELECTING_FILES = ("kedro/pipeline/pipeline.py", "kedro/framework/session/session.py")
"""Files of Kedro that raise ValueError where nodes or pipelines that were asked for do not exist."""


def forget_pipelines() -> None:
    """Make Kedro ask for the pipelines again: they follow from the plan, and so from environment and parameters."""
    pipelines._is_data_loaded = False
    pipelines._content = {}


def project_hooks() -> PluginManager:
    """The hooks of the project's settings, as a session registers them, in a process that has no session."""
    manager = _create_hook_manager()
    _register_hooks(manager, settings.HOOKS)
    return manager


def place_of(dataset: AbstractDataset[Any, Any] | None) -> Path | None:
    """The file or folder of a catalog entry; None for what is in memory."""
    place = dataset._describe().get("filepath") if dataset is not None else None
    return None if place is None else Path(place)


def validators_of(catalog: CatalogProtocol, names: Iterable[str]) -> dict[str, ValidatorSpec]:
    """The checks that a catalog makes when it loads or saves these entries."""
    declared: Mapping[str, ValidatorSpec] = getattr(catalog, "validator_specs", {})
    return {name: declared[name] for name in names if name in declared}


def add_validators(catalog: DataCatalog, validators: Mapping[str, ValidatorSpec]) -> None:
    """Let a catalog that was made of datasets check its entries; Kedro reads checks from configuration alone."""
    catalog._validator_specs.update(validators)


def viz_identity(entry: str) -> str:
    """The name by which Kedro-Viz knows a catalog entry."""
    from kedro_viz.utils import _hash_input_output

    identity: str = _hash_input_output(entry)
    return identity


def is_kedro_viz() -> bool:
    """True in the process that Kedro-Viz starts to draw the pipelines, where nothing is run."""
    return "kedro_viz.server" in sys.modules and multiprocessing.parent_process() is not None


def keep_viz_offline(for_this_machine: Callable[[str], str]) -> None:
    """Let Kedro-Viz ask no package index for its version, and pass its pages through a function before it gives them.

    It has no setting for either. The pages are those that it serves, and the one that `kedro viz build` writes.
    """
    from kedro_viz.api import apps
    from kedro_viz.api.rest import router
    from kedro_viz.api.rest.responses.version import get_static_version_response
    from kedro_viz.integrations import pypi
    from kedro_viz.integrations.deployment.base_deployer import BaseDeployer

    pypi.get_latest_version = lambda: None
    router.get_version_response = get_static_version_response
    make_app, write_page = apps._create_base_api_app, BaseDeployer._write_heap_injected_index

    def make_offline_app() -> FastAPI:
        app: FastAPI = make_app()
        app.middleware("http")(_through(for_this_machine))
        return app

    apps._create_base_api_app = make_offline_app
    BaseDeployer._write_heap_injected_index = lambda self, page: write_page(self, for_this_machine(page))


def _through(
    change: Callable[[str], str],
) -> Callable[[Request, Callable[[Request], Awaitable[Any]]], Awaitable[Response]]:
    """Middleware that changes pages and leaves other answers as they are."""
    from starlette.responses import HTMLResponse

    async def answer(request: Request, call_next: Callable[[Request], Awaitable[Any]]) -> Response:
        response = await call_next(request)
        if not response.headers.get("content-type", "").startswith("text/html"):
            return response
        page = b"".join([part async for part in response.body_iterator]).decode()
        return HTMLResponse(change(page), response.status_code)

    return answer
