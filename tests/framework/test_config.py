"""The configuration loader: one plan for every entry point, and what environments and parameters do to it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from kedro.config import OmegaConfigLoader
from kedro.framework.project import configure_project, pipelines

from tiny_project import ROOT
from transferscope.cost.device_speed import Speed
from transferscope.cost.plan_cost import plan_costs
from transferscope.experiment.plan import make_plan
from transferscope.framework.config import CommandLineError, PlanConfigLoader
from transferscope.framework.plan_parameters import plan_parameters
from transferscope.framework.yaml_files import read_mapping
from transferscope.settings import CONFIG_LOADER_ARGS
from transferscope.system.nested import laid_over


@pytest.fixture(autouse=True)
def _project() -> Iterator[None]:
    configure_project("transferscope")
    yield
    load()  # leaves the plan of base for whoever comes next


def load(conf: Path = ROOT / "conf", **options: Any) -> PlanConfigLoader:
    return PlanConfigLoader(str(conf), **{**CONFIG_LOADER_ARGS, "default_run_env": "base", **options})


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    """Base, and an empty `local`."""
    shutil.copytree(ROOT / "conf/base", tmp_path / "conf/base")
    (tmp_path / "conf/local").mkdir()
    return tmp_path / "conf"


def nodes_of(name: str) -> set[str]:
    return {node.name for node in pipelines[name].nodes}


def test_pipelines_follow_the_environment_of_the_last_loader() -> None:
    """Building a loader for another environment is enough to change the pipelines, whoever builds it."""
    load()
    assert "clipart.training.pt_1" in nodes_of("training")
    load(env="own_images")
    assert "clipart.training.pt_1" not in nodes_of("training")
    assert "amazon.training.pt_1" in nodes_of("training")


def test_pipelines_follow_runtime_parameters() -> None:
    """One replica more is one node more for each task, and its siblings stay."""
    load()
    before = nodes_of("training")
    load(runtime_params={"runs": {"pt": {"replicas": 3}}})
    assert nodes_of("training") - before == {
        f"{task}.training.pt_3" for task in ("real", "clipart", "quickdraw", "chest")
    }


def test_patterns_are_the_files_by_the_numbers_in_their_names(tmp_path: Path) -> None:
    """Of a folder anywhere; where there are none it is one line."""
    for number in (10, 2, 1):
        (tmp_path / f"epoch_{number}.pth").write_bytes(b"")
    kind = {"label": "m", "tasks": ["images"], "initialisation": "checkpoint", "checkpoints": f"{tmp_path}/*.pth"}
    plan = load(env="own_checkpoints", runtime_params={"runs": {"m": kind}}).plan
    files = [plan.runs[f"images.m_{replica}"].checkpoint for replica in (1, 2, 3)]
    assert files == [f"{tmp_path}/epoch_{number}.pth" for number in (1, 2, 10)]
    kind["checkpoints"] = f"{tmp_path}/*.ckpt"
    with pytest.raises(CommandLineError, match=r"runs.m.checkpoints: no file is there for .*\*.ckpt"):
        _ = load(env="own_checkpoints", runtime_params={"runs": {"m": kind}}).plan


def test_a_command_may_bring_a_study_of_its_own(tmp_path: Path) -> None:
    """With inherit_study: false nothing of the environment's runs and tasks is left, and its other options stay."""
    runs = {"x": {"label": "x", "tasks": ["mine"], "initialisation": "checkpoint", "checkpoint": "x.pth"}}
    study = {"tasks": {"mine": {"format": "image_folder", "root": None}}, "runs": runs}
    analyses = {"mistakes": None, "landscape": None, "similarity": None, "spectrum": {"kinds": ["x"]}, "merging": None}
    given = {"inherit_study": False, "globals": {"data": str(tmp_path)}, "analyses": analyses} | study
    loader = load(env="own_checkpoints", runtime_params=given)
    assert list(loader.plan.runs) == ["mine.x_1"]
    assert loader.plan.study.analyses.spectrum.epochs == ("final",)
    assert loader["catalog"]["report"]["filepath"] == f"{tmp_path}/08_reporting/report.html"
    assert loader.plan.study.models_folder == f"{tmp_path}/06_models"


def test_every_environment_is_a_valid_plan() -> None:
    """The configuration that the project ships is accepted, and paper has the appendix's kinds of run."""
    assert len(load().plan.runs) == 23 + 11  # four sizes of two kinds, three source epochs
    assert len(load(env="own_images").plan.runs) == 18
    paper, reuse = load(env="paper").plan, load(env="paper_feature_reuse").plan
    assert len(paper.runs) == 1 + 4 * (2 + 2 + 1 + 1 + 1) + 3 * 2
    assert len(reuse.runs) - len(paper.runs) == 3 * (13 * 2 + 6 + 12)  # sizes, controls, source epochs, on each domain
    assert {name: run.fingerprint for name, run in reuse.runs.items() if name in paper.runs} == {
        name: run.fingerprint for name, run in paper.runs.items()
    }
    assert list(load(env="own_checkpoints").plan.runs) == ["images.a_1", "images.b_1"]


def test_weights_that_others_start_from_are_input_to_them() -> None:
    """Kedro-Viz puts P beside the images of the targets; its entry lies where those of other runs do."""
    catalog = load()["catalog"]
    layers = {
        name: catalog[name]["metadata"]["kedro-viz"]["layer"] for name in catalog if name.startswith("shapes.p_1.")
    }
    assert layers == {"shapes.p_1.checkpoints": "model_input", "shapes.p_1.singular_values": "model_input"}
    place = catalog["{task}.{run}.checkpoints"]["filepath"]
    assert catalog["shapes.p_1.checkpoints"]["filepath"] == place.format(task="shapes", run="p_1")


def test_no_figure_of_training_is_drawn_of_checkpoints_from_elsewhere() -> None:
    """They have one epoch and no start; what compares them is drawn."""
    load(env="own_checkpoints")
    drawn = {name for name in nodes_of("__default__") if ".draw_" in name}
    of_training = {
        "training.draw_learning_curves",
        "similarity.draw_distance_to_initialisation",
        "spectrum.draw_spectrum_training",
    }
    assert {"images.landscape.draw_barrier", "images.similarity.draw_distance_per_module"} <= drawn
    assert not {f"images.{name}" for name in of_training} & drawn
    load()
    assert {f"clipart.{name}" for name in of_training} <= nodes_of("__default__")


def test_without_images_all_that_follows_from_weights_is_there() -> None:
    """Distances, spectra and the report need no entry beside parameters; nothing that needs images is there."""
    load(env="own_checkpoints")
    names = ("distance_a_1__b_1", "gather_distances", "draw_distance_per_module")
    weights = {f"images.similarity.{name}" for name in names} | {"images.spectrum.spectrum_a_1"}
    assert weights <= nodes_of("__default__")
    load(env="own_checkpoints", runtime_params={"tasks": {"images": {"root": None}}})
    assert weights <= nodes_of("__default__")
    assert all(name.startswith("params:") for name in pipelines["__default__"].inputs())
    assert {name for name, made in pipelines.items() if made.nodes} - {"__default__"} == {
        "training", "similarity", "spectrum", "report",
    }  # fmt: skip
    assert not {name for name in nodes_of("__default__") if "cka" in name or "margin" in name or "history" in name}


def test_an_environment_may_leave_the_study_of_base() -> None:
    """`inherit_study: false` drops tasks, runs and scenarios of base, and keeps its model and training."""
    plan = load(env="own_images").plan
    assert "clipart" not in plan.study.tasks
    assert plan.study.model.name == load().plan.study.model.name
    assert plan.runs["amazon.rit_1"].training.clip_norm == 2.0


INHERITED = {
    "paper": {"models_folder"},
    "paper_feature_reuse": {"models_folder"},
    "own_images": {
        "models_folder", "model.name", "training.batch_size", "training.warmup_fraction", "training.clip_norm",
        "training.channels_last", "training.evaluate_every", "training.keep_epochs",
        "analyses.mistakes", "analyses.similarity", "analyses.spectrum", "analyses.landscape.max_examples",
        "analyses.landscape.extrapolation.points",
    },
    "feature_reuse": set(),
    "merging": {"training.keep_epochs"},
    "split": {"analyses.landscape.max_examples", "analyses.landscape.extrapolation.points"},
    "width": {
        "training.keep_epochs", "analyses.landscape.max_examples", "analyses.landscape.extrapolation.points",
    },
    "own_checkpoints": {
        "seed", "models_folder", "training.epochs", "training.batch_size", "training.warmup_fraction",
        "training.clip_norm", "training.channels_last", "training.evaluate_every", "training.keep_epochs",
    },
}  # fmt: skip
"""What each environment means to take from base; nothing is trained in own_checkpoints."""


def leaves(values: Any, before: str = "") -> set[str]:
    """Dotted keys of all values that are no mapping; of an empty mapping its own."""
    if not isinstance(values, dict) or not values:
        return {before}
    return {leaf for key, value in values.items() for leaf in leaves(value, f"{before}.{key}" if before else str(key))}


@pytest.mark.parametrize("env", INHERITED)
def test_nothing_of_base_leaks_into_an_environment(env: str) -> None:
    """Every key that a shipped environment takes from base is in the list above; `paper` says all that it means."""
    written = read_mapping(ROOT / "conf" / env / "parameters.yml")
    below = written.pop("extends", None)
    own = leaves(written) | (leaves(read_mapping(ROOT / "conf" / below / "parameters.yml")) if below else set())
    own -= {"inherit_study"}
    merged = leaves(OmegaConfigLoader.__getitem__(load(env=env), "parameters"))
    assert merged - own == INHERITED[env]


def test_the_curves_of_figure_2_have_a_point_for_each_epoch_or_two() -> None:
    """P-T and RI-T are evaluated after every epoch, on CheXpert with its 200 and 400 after every other; no more is cut."""
    runs = load(env="paper").plan.runs.values()
    drawn = {(run.task == "chexpert", run.training.evaluate_every) for run in runs if run.kind in ("pt", "rit")}
    assert drawn == {(False, 1), (True, 2)}
    others = [run for run in runs if run.kind not in ("p", "pt", "rit")]
    assert {run.training.evaluate_every for run in others} == {5}
    assert {run.training.evaluate_train_on for run in runs} == {10_000}


def test_the_papers_plan_puts_at_most_700_million_images_through_networks() -> None:
    """Trained on, evaluated in training and in analyses; with Figures 3 and 7 it is a multiple."""
    assert counted_images("paper") < 700e6 < 1500e6 < counted_images("paper_feature_reuse")


def counted_images(env: str) -> float:
    """All images of the table "Whole plan" that go through a network."""
    plan = load(env=env).plan
    sizes = {"imagenet": (1_281_167, 50_000), "clipart": (33_525, 14_604)}
    whole = plan_costs(plan, sizes, Speed(1000.0, 3000.0))["Whole plan"].set_index("work")["count"]
    return float(whole[["optimizer steps", "evaluation in training", "analyses"]].sum())


def test_an_environment_may_change_one_value(tmp_path: Path) -> None:
    """Without that key an environment is merged into base, key by key."""
    for env in ("base", "local"):
        (tmp_path / env).mkdir()
    for name in ("parameters.yml", "globals.yml"):
        (tmp_path / "base" / name).write_text((ROOT / "conf/base" / name).read_text())
    (tmp_path / "local/parameters.yml").write_text("tasks: {clipart: {root: elsewhere}}\n")
    plan = load(tmp_path, env="local").plan
    assert plan.study.tasks["clipart"].root == "elsewhere"
    assert plan.study.tasks["clipart"].format == "domainnet"
    assert "real" in plan.study.tasks


def test_sources_are_catalog_entries_where_the_task_says() -> None:
    """Every task with a folder has an entry; a union, which has none, has not."""
    catalog = load()["catalog"]
    assert catalog["clipart.source"]["filepath"] == "data/01_raw/generated/domains"
    assert "real_clipart.source" not in catalog


def test_nodes_find_their_run_among_the_parameters() -> None:
    """`params:plan.runs.clipart.pt_1` is the run with its seeds and its fingerprint."""
    loader = load()
    run = loader["parameters"]["plan"]["runs"]["clipart"]["pt_1"]
    assert run["fingerprint"] == loader.plan.runs["clipart.pt_1"].fingerprint


def test_a_mistake_is_an_error_of_the_command_line() -> None:
    """The message is one line with the key; click shows it without a traceback."""
    with pytest.raises(CommandLineError, match=r"parameters: runs\.pt\.replica: unknown key") as caught:
        _ = load(runtime_params={"runs": {"pt": {"replica": 3}}}).plan
    assert caught.value.exit_code == 1
    assert "\n" not in caught.value.format_message()


@pytest.mark.parametrize(
    "env",
    [
        "base",
        "feature_reuse",
        "merging",
        "own_checkpoints",
        "own_images",
        "paper",
        "paper_feature_reuse",
        "split",
        "width",
    ],
)
def test_the_study_among_the_parameters_makes_the_same_plan_again(env: str) -> None:
    """Nodes of the report make the plan from it; keys that were not written stay unwritten."""
    loader = load(env=env)
    assert make_plan(plan_parameters(loader.plan, loader)["plan"]["study"]) == loader.plan


@pytest.mark.parametrize("analysis", ["landscape", "spectrum"])
def test_an_analysis_set_to_null_by_a_runtime_parameter(analysis: str) -> None:
    """With `inherit_study: false`, too, null leaves an analysis out."""
    plan = load(env="own_checkpoints", runtime_params={"analyses": {analysis: None}}).plan
    assert getattr(plan.study.analyses, analysis) is None


@pytest.mark.parametrize("value", [None, "x", True])
def test_analyses_of_another_type_are_a_line(value: Any) -> None:
    """Whatever stands in the place of analyses is named by its key, not a traceback."""
    with pytest.raises(CommandLineError, match="analyses"):
        load(env="own_checkpoints", runtime_params={"analyses": value}).plan  # noqa: B018
    if value is not None:
        with pytest.raises(CommandLineError, match=r"analyses\.landscape"):
            load(env="own_checkpoints", runtime_params={"analyses": {"landscape": value}}).plan  # noqa: B018


def with_environment(conf: Path, parameters: str, globals_: str = "data: data/x") -> PlanConfigLoader:
    """The shipped configuration with an environment `x` of these files."""
    (conf / "x").mkdir(parents=True)
    (conf / "base").symlink_to(ROOT / "conf" / "base")
    (conf / "x" / "parameters.yml").write_text(parameters)
    (conf / "x" / "globals.yml").write_text(globals_)
    return load(conf, env="x")


@pytest.mark.parametrize("value", ["nein", "0", "", "'false'"])
def test_inherit_study_is_true_or_false(tmp_path: Path, value: str) -> None:
    """A word that is neither would silently add the whole study of base, or leave it out."""
    with pytest.raises(CommandLineError, match="inherit_study: must be true or false"):
        with_environment(tmp_path, f"inherit_study: {value}").plan  # noqa: B018


def test_a_list_in_the_place_of_keys_is_named(tmp_path: Path) -> None:
    """The merge of two environments names the key, in words of YAML."""
    with pytest.raises(CommandLineError, match=r"x: analyses\.landscape: a list, where `key: value` lines belong"):
        with_environment(tmp_path, "analyses: {landscape: []}").plan  # noqa: B018


@pytest.mark.parametrize("value", ["", "~", "''", "12", "[a]", "~/study", "true"])
def test_the_data_folder_is_a_path(tmp_path: Path, value: str) -> None:
    """`data: ~` is null in YAML and would write into a folder `None`; a home folder is not expanded by catalogs."""
    with pytest.raises(CommandLineError, match=r"globals.yml: data: must be the path of a folder"):
        with_environment(tmp_path, "", f"data: {value}")


def test_a_command_that_takes_a_subfolder_for_the_project() -> None:
    """Kedro-Viz looks for the configuration below the working folder; the error names the project's folder."""
    with pytest.raises(CommandLineError, match=f"run this command in the project's folder, {ROOT}"):
        load(ROOT / "tests" / "conf")


def test_a_home_folder_that_does_not_exist_is_a_line() -> None:
    """`~nobody/a.pth` names no user of this machine."""
    with pytest.raises(CommandLineError, match="no user of this name"):
        load(env="own_checkpoints", runtime_params={"runs": {"a": {"checkpoint": "~no_such_user_/a.pth"}}}).plan  # noqa: B018


DAMAGE = {
    "tab": (b"a:\n\tb: 1\n", "line 2, column 1: a tab; indent with spaces"),
    "twice": (b"a: 1\na: 2\n", "line 2: the key 'a' is there twice"),
    "list": (b"- 1\n", "line 1: the file holds a list"),
    "binary": (bytes(range(1, 256)), "line 2: the file is not UTF-8"),
    "UTF-16": ("a: 1\n".encode("utf-16"), "line 1: the file is UTF-16"),
    "conflict": (
        b"a: 1\n<<<<<<< HEAD\nb: 1\n=======\nb: 2\n>>>>>>> other\n",
        "line 2: a conflict that git left; keep one of its two versions",
    ),
    "web page": (b"<html><body>404</body></html>", "line 1: the file holds a single value"),
    "aliases": (b"a: &a [*a]\n", "line 1: an alias refers to what it stands in"),
    "folder": (None, "is a folder, where a file belongs"),
    "link": ("nowhere", "is a link to nowhere, where no file is"),
    "loop": ("itself", "is a link to "),
    "pipe": (None, "is no file"),
    "device": ("/dev/zero", "is no file"),
}


def damage(path: Path, kind: str, content: bytes | str | None) -> None:
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, str):
        path.symlink_to(path.name if content == "itself" else content)
    else:
        path.mkdir() if kind == "folder" else os.mkfifo(path)


@pytest.mark.parametrize("key", ["parameters", "globals", "catalog", "credentials"])
@pytest.mark.parametrize("kind", DAMAGE)
def test_every_file_of_the_configuration_in_every_way(conf: Path, key: str, kind: str) -> None:
    """Damage ends in one line that names the file, whichever it is; nothing is passed over, and nothing is waited for."""
    content, message = DAMAGE[kind]
    path = conf / "local" / f"{key}.yml"
    damage(path, kind, content)
    with pytest.raises(CommandLineError) as caught:
        _ = load(conf, env="local")[key]
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("key", ["parameters", "globals", "catalog"])
@pytest.mark.parametrize("content", [b"", b"# nothing yet\n", b"\xef\xbb\xbf# from Windows\r\n", b"null\n"])
def test_files_of_the_configuration_may_be_empty(conf: Path, key: str, content: bytes) -> None:
    """Then base holds."""
    expected = load(conf, env="local")[key]
    (conf / "local" / f"{key}.yml").write_bytes(content)
    assert load(conf, env="local")[key].keys() == expected.keys()


@pytest.mark.parametrize(
    ("name", "near"), [("paramters.yml", "parameters"), ("parameter.yml", "parameters"), ("Catalog.yml", "catalog")]
)
def test_a_file_under_a_mistyped_name_is_named(conf: Path, name: str, near: str) -> None:
    """Kedro reads no file of such a name, so what stands in it would have no effect; those of others stay."""
    (conf / "local" / "mlflow.yml").write_text("server: {}\n")
    (conf / "local" / "spark.yml").write_text("a: 1\n")
    _ = load(conf, env="local").plan
    (conf / "local" / name).write_text("seed: 3\n")
    with pytest.raises(CommandLineError, match=rf"{name}: no file of this name is read; did you mean {near}\.yml\?"):
        _ = load(conf, env="local").plan


class _Laid(PlanConfigLoader):
    """The parameters of a study with those of the command over them, without reading files again."""

    study: dict[str, Any]

    def checked_item(self, key: str) -> dict[str, Any]:
        return laid_over(self.study, self.runtime_params) if key == "parameters" else super().checked_item(key)


def keys_below(values: dict[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in values.items():
        yield (*above, key)
        if isinstance(value, dict):
            yield from keys_below(value, (*above, key))


def test_no_value_of_any_key_of_a_command_ends_in_a_traceback() -> None:
    """Each key of a study, and of globals, with a value of each kind: a plan, or an error of the command line."""
    files = load(env="own_checkpoints").checked_item("parameters")
    _Laid.study = laid_over(files, {"tasks": {"u": {"union": ["images"]}}})
    kept, keys = set(), [*keys_below(_Laid.study), ("globals",), ("globals", "data"), ("globals", "x"), ("new",)]
    for path in keys:
        for value in (3, [], {}, "x"):
            params: Any = value
            for key in reversed(path):
                params = {key: params}
            with suppress(CommandLineError):
                loader = _Laid(str(ROOT / "conf"), env="own_checkpoints", runtime_params=params, **CONFIG_LOADER_ARGS)
                _ = loader["globals"], loader["parameters"]
                kept.add((".".join(path), str(value)))
    assert ("runs.a.label", "x") in kept
    assert not {("globals", "3"), ("globals.data", "3"), ("globals.x", "x"), ("tasks.u.union", "[]")} & kept
    assert len(kept) < 4 * len(keys) / 2


def test_code_that_a_network_imports_decides_its_fingerprint(tmp_path: Path) -> None:
    """A module beside `nets.py` that it imports, not one that it does not import."""
    for name, text in (("nets", "import blocks"), ("blocks", "width = 8"), ("other", "width = 8")):
        (tmp_path / f"{name}.py").write_text(text)
    known = []
    for name, text in ((None, ""), ("other", "width = 9"), ("blocks", "width = 16")):
        if name is not None:
            (tmp_path / f"{name}.py").write_text(text)
        plan = load(runtime_params={"model": {"name": f"{tmp_path}/nets.py:build"}}).plan
        known.append(plan.runs["clipart.pt_1"].fingerprint)
    assert known[0] == known[1] != known[2]
