"""Nodes take types: Kedro makes them of the parameters, and no node does so by hand."""

from __future__ import annotations

import ast
import logging
import re
import subprocess
import sys
from pathlib import Path

import pytest
from kedro.validation.parameter_validator import ParameterValidator
from pydantic import BaseModel

import transferscope
from transferscope import settings
from transferscope.framework.config import PlanConfigLoader
from transferscope.pipelines import data_prep, landscape, mistakes, report, similarity, spectrum, training

SOURCE = Path(transferscope.__file__).parent
ROOT = SOURCE.parent.parent
NODES = sorted((SOURCE / "pipelines").glob("*/nodes.py"))
SPLIT = ("split", "rsplit", "partition", "rpartition")
OTHER_NAMES = ("analysis", "models", "images", "generated", "system")
ANALYSES = (data_prep, training, mistakes, similarity, landscape, spectrum)


@pytest.mark.parametrize("path", NODES, ids=lambda path: path.parent.name)
def test_no_node_is_untyped(path: Path) -> None:
    """No `Any`, no dict of anything, no `model_validate`; every input and every result has a type."""
    tree = ast.parse(path.read_text())
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    called = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert "Any" not in names
    assert not called & {"model_validate", "model_construct", "parse_obj"}
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    methods = [part for node in ast.walk(tree) if isinstance(node, ast.ClassDef) for part in node.body]
    assert functions
    for function in functions:
        arguments = function.args
        positional = arguments.args[1:] if function in methods else arguments.args
        every = [*positional, *arguments.kwonlyargs, *filter(None, (arguments.vararg, arguments.kwarg))]
        assert all(argument.annotation for argument in every), function.name
        assert function.returns, function.name


@pytest.mark.parametrize("together", [False, True])
def test_kedro_makes_every_type_of_the_parameters(together: bool, caplog: pytest.LogCaptureFixture) -> None:
    """Each parameter that a node takes as a model is one after Kedro's validation, without a warning of Kedro."""
    params = {"analyses": {"pairs_in_one_node": together}, "training": {"together": together}}
    loader = PlanConfigLoader(str(ROOT / "conf"), env="base", runtime_params=params, **settings.CONFIG_LOADER_ARGS)
    made = {module.__name__: module.create_pipeline(loader.plan) for module in ANALYSES}
    made["report"] = report.create_pipeline(loader.plan, made.values())
    validator = ParameterValidator(made)
    with caplog.at_level(logging.WARNING):
        typed = validator.validate_raw_params(loader["parameters"])
    assert not caplog.records
    required = validator.type_extractor.extract_types_from_pipelines()
    nodes = [node for pipeline in made.values() for node in pipeline.nodes]
    taken = {name for node in nodes for name in node.inputs if name.startswith("params:plan.runs")}
    assert taken <= {f"params:{name}" for name in required}
    for name, wanted in required.items():
        value: object = typed
        for key in name.split("."):
            assert isinstance(value, dict), f"{name}: Kedro made a model of what holds it"
            value = value[key]
        assert isinstance(value, wanted), name
        assert isinstance(value, BaseModel)


def test_no_name_is_taken_apart_by_hand() -> None:
    """Only `experiment.names` knows the signs in names of checkpoints, runs, pairs, nodes and entries of the catalog.

    No other file splits at `@` or puts it in. Nor does one split at `.` or cut such an end off, in the rooms where names
    come by; the others hold names of tensors, files and Python modules, and of those here `training/optim.py`.
    """
    for path in set(SOURCE.rglob("*.py")) - {SOURCE / "experiment" / "names.py"}:
        inside = path.relative_to(SOURCE)
        has_names = inside.parts[0] not in OTHER_NAMES and str(inside) != "training/optim.py"
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                given = [*node.args, *(keyword.value for keyword in node.keywords)]
                signs = [part.value for part in given if isinstance(part, ast.Constant)]
                assert "@" not in signs, f"{path}:{node.lineno}"
                if has_names or str(inside) == "models/series.py":
                    assert node.func.attr not in SPLIT or "." not in signs, f"{path}:{node.lineno}"
                    ends = [text for text in signs if isinstance(text, str) and re.fullmatch(r"\.\w+", text)]
                    assert node.func.attr != "removesuffix" or not ends, f"{path}:{node.lineno}"
            if isinstance(node, ast.JoinedStr):
                texts = [part.value for part in node.values if isinstance(part, ast.Constant)]
                assert not any(str(text).endswith("@") or str(text).startswith("@") for text in texts), (
                    f"{path}:{node.lineno}"
                )


def test_hints_are_read_without_the_classes() -> None:
    """Kedro evaluates the annotations of all nodes at the start of a run; neither torch nor matplotlib is imported."""
    script = (
        "import sys\n"
        "from typing import get_type_hints\n"
        "from transferscope.pipelines import data_prep, landscape, mistakes, report, similarity, spectrum, training\n"
        "for module in (data_prep, landscape, mistakes, report, similarity, spectrum, training):\n"
        "    nodes = __import__(f'{module.__name__}.nodes', fromlist=['nodes'])\n"
        "    for function in vars(nodes).values():\n"
        "        if getattr(function, '__module__', None) == nodes.__name__ and callable(function):\n"
        "            get_type_hints(function)\n"
        "assert not {'torch', 'matplotlib', 'torchvision', 'sklearn', 'pandera'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
