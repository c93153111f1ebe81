"""Kedro's settings of this project."""

from transferscope.config import PlanConfigLoader
from transferscope.hooks import StudyHooks

HOOKS = (StudyHooks(),)
CONFIG_LOADER_CLASS = PlanConfigLoader
CONFIG_LOADER_ARGS = {
    "base_env": "base",
    "default_run_env": "local",
    "merge_strategy": {"parameters": "soft"},
}
