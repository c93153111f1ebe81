"""Fixtures for all tests: one tiny study, run once from drawing to report."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator

# Here and in all processes that tests start: code is compiled once and not in each of them.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
os.environ["DO_NOT_TRACK"] = "1"  # Kedro's telemetry asks a server, in each session and process anew

import pytest  # noqa: E402
import torch  # noqa: E402

from every_package import pytest_collectreport, pytest_runtest_logreport, pytest_sessionfinish  # noqa: E402, F401
from tiny_project import ROOT, Project, make_project  # noqa: E402


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The tiny study, run once from drawing to report. Tests may read it, not change it.

    One thread an operation, here and in the tests that run parts of it again: another number rounds differently.
    """
    torch.set_num_threads(1)
    made = make_project(tmp_path_factory.mktemp("project"))
    made.run()
    # Tests run parts of it again, some to see them fail; this is the status after the whole run.
    shutil.copy(made.folder / ".viz" / "kedro_pipeline_events.json", made.folder / "events_of_whole_run.json")
    return made


@pytest.fixture(autouse=True)
def messages_name_nodes_of_no_plan() -> Iterator[None]:
    """Messages name the nodes of the plan that was made last, which would be that of whichever test came before."""
    yield
    from transferscope.experiment.run_groups import present_nodes

    present_nodes(dict)


@pytest.fixture
def base_again() -> Iterator[None]:
    """Tests of environments leave the plan of base for whoever comes next."""
    from kedro.framework.project import configure_project

    from transferscope.framework.config import PlanConfigLoader
    from transferscope.settings import CONFIG_LOADER_ARGS

    configure_project("transferscope")
    yield
    PlanConfigLoader(str(ROOT / "conf"), **{**CONFIG_LOADER_ARGS, "default_run_env": "base"})


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep all tests of the tiny study in one process, so that it is run once."""
    for item in items:
        fixtures = getattr(item, "_fixtureinfo", None)
        definitions = fixtures.name2fixturedefs.get("project", ()) if fixtures else ()
        if any(definition.func is project.__wrapped__ for definition in definitions[-1:]):
            item.add_marker(pytest.mark.xdist_group("project"))
