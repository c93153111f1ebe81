"""Kedro's settings of this project."""

import warnings

from transferscope.config import PlanConfigLoader
from transferscope.hooks import StudyHooks

# Entries are named by what they belong to, also where a node of another task reads them.
warnings.filterwarnings("ignore", message="One or more dataset names contain '.' characters")

HOOKS = (StudyHooks(),)
CONFIG_LOADER_CLASS = PlanConfigLoader
CONFIG_LOADER_ARGS = {
    "base_env": "base",
    "default_run_env": "local",
    "merge_strategy": {"parameters": "soft"},
}
