"""Kedro's settings of this project."""

import os
import sys
import warnings
from pathlib import Path

from kedro.framework.project import LOGGING
from kedro.utils import find_kedro_project

from transferscope.framework.hooks import StudyHooks
from transferscope.framework.plan_loader import PlanConfigLoader
from transferscope.framework.runners.surroundings import Surroundings
from transferscope.framework.staleness import MadeBy
from transferscope.framework.tracking import Tracking
from transferscope.framework.viz_status import RunStatus
from transferscope.framework.yaml_files import read_mapping
from transferscope.system.errors import UserError, one_line

# Entries are named by what they belong to, also where a node of another task reads them.
warnings.filterwarnings("ignore", message="One or more dataset names contain '.' characters")

LOGGING_FILE = Path("conf") / "base" / "logging.yml"


def _log_as_in_the_project() -> None:
    """Configure logging, where a mistake is one line: Kedro itself would read the file before it is checked."""
    if "KEDRO_LOGGING_CONFIG" in os.environ:
        return
    file = (find_kedro_project(Path.cwd()) or Path()) / LOGGING_FILE
    if not os.path.lexists(file):  # an installed project without its configuration
        return
    try:
        LOGGING.configure(read_mapping(file))
    except UserError as error:
        sys.exit(f"Error: {error}")
    except Exception as error:  # of logging and of the handlers that the file names
        sys.exit(f"Error: {file}: {one_line(' '.join(str(part) for part in (error, error.__cause__) if part))}")


_log_as_in_the_project()

# The last is called first: what went wrong is recorded before it becomes a line for the user, results of another plan
# are named after missing ones, and nothing is changed around a run that is refused, nor is it recorded.
HOOKS = (Tracking(), Surroundings(), MadeBy(), StudyHooks(), RunStatus())
# RunStatus stands in for those of Kedro-Viz; telemetry is off by `.telemetry`, which an installed wheel has not.
DISABLE_HOOKS_FOR_PLUGINS = ("kedro-viz", "kedro-telemetry")
CONFIG_LOADER_CLASS = PlanConfigLoader
CONFIG_LOADER_ARGS = {
    "base_env": "base",
    "default_run_env": "local",
    "merge_strategy": {"parameters": "soft"},
}
