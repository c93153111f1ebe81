"""Kedro's settings of this project."""

import warnings

from transferscope.framework.config import PlanConfigLoader
from transferscope.framework.hooks import StudyHooks
from transferscope.framework.runners.surroundings import Surroundings
from transferscope.framework.staleness import MadeBy
from transferscope.framework.viz_status import RunStatus

# Entries are named by what they belong to, also where a node of another task reads them.
warnings.filterwarnings("ignore", message="One or more dataset names contain '.' characters")

# The last is called first: what went wrong is recorded before it becomes a line for the user, results of another plan
# are named after missing ones, and nothing is changed around a run that is refused.
HOOKS = (Surroundings(), MadeBy(), StudyHooks(), RunStatus())
DISABLE_HOOKS_FOR_PLUGINS = ("kedro-viz",)  # RunStatus stands in for them
CONFIG_LOADER_CLASS = PlanConfigLoader
CONFIG_LOADER_ARGS = {
    "base_env": "base",
    "default_run_env": "local",
    "merge_strategy": {"parameters": "soft"},
}
