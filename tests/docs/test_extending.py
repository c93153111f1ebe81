"""Extensions as the page docs/extending.md shows them, in modules outside the package."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tiny_project import ROOT, Project, make_project
from transferscope.experiment.data_formats import format_class
from transferscope.measure.own import own_parts
from transferscope.pipelines.own.pipeline import create_pipeline
from transferscope.system.errors import UserError

PAGE = (ROOT / "docs" / "extending.md").read_text()
BLOCK = re.compile(r"```\{code-block\} python\n:caption: (src/\w+\.py)\n\n(.*?)```", re.DOTALL)
MODULES = dict(BLOCK.findall(PAGE))

STUDY = """
inherit_study: false
tasks:
  mine: {format: "my_formats:CsvList", root: data/01_raw/mine, label: species, pictures: {store_size: 16}}
model: {name: "my_nets:build", options: {width: 4}}
training: {epochs: 2, batch_size: 16, evaluate_every: 1}
runs:
  rit: {label: RI-T, tasks: [mine], replicas: 2}
analyses:
  mistakes: {bootstrap: 20, pairs: [[rit, rit]]}
  similarity: null
  landscape: null
  spectrum: null
  own: {modules: [my_analyses]}
report: {claims: [my_claims]}
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose format, network, analysis, figure and claim are the page's, after `kedro run`."""
    made = make_project(tmp_path_factory.mktemp("extended"), STUDY)
    for name, content in MODULES.items():
        (made.folder / name).write_text(content)
    write_images(made.folder / "data" / "01_raw" / "mine")
    command = [sys.executable, "-m", "kedro", "run", "--runner", "SequentialRunner"]
    done = subprocess.run(command, cwd=made.folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    sys.path.insert(0, str(made.folder / "src"))
    yield made
    sys.path.remove(str(made.folder / "src"))


def write_images(root: Path) -> None:
    """Red and blue squares, listed in train.csv and test.csv."""
    rng = np.random.default_rng(0)
    for part, number in (("train", 40), ("test", 20)):
        rows = []
        (root / part).mkdir(parents=True)
        for index in range(number):
            pixels = rng.integers(0, 90, (16, 16, 3), dtype=np.uint8)
            pixels[..., 2 * (index % 2)] += 150
            Image.fromarray(pixels).save(root / part / f"{index}.png")
            rows.append({"path": f"{part}/{index}.png", "species": ("red", "blue")[index % 2]})
        pd.DataFrame(rows).to_csv(root / f"{part}.csv", index=False)


@pytest.mark.parametrize("name", MODULES)
def test_an_extension_takes_few_lines(name: str) -> None:
    """Each function or class on the page is at most ten lines of code beside its imports."""
    parts = re.split(r"\n(?=@|class |def )", MODULES[name])
    lengths = [len([line for line in part.splitlines() if line.strip()]) for part in parts[1:]]
    assert lengths
    assert max(lengths) <= 10


def test_images_are_read_by_the_format_of_ones_own(project: Project) -> None:
    """Classes and labels come from the column that the task names."""
    split = project.load("mine.test_split")
    assert tuple(split.class_names) == ("blue", "red")
    assert [int(label) for label in split.labels[:4]] == [1, 0, 1, 0]


def test_runs_have_the_network_of_ones_own(project: Project) -> None:
    """The checkpoints name the function, and their weights have the width of the parameters."""
    checkpoint = project.load("mine.rit_1.checkpoints").load("final")
    assert checkpoint.metadata.architecture == "my_nets:build"
    assert checkpoint.state_dict["0.weight"].shape == (4, 3, 3, 3)


def test_the_analysis_has_a_table_and_the_figure_is_drawn(project: Project) -> None:
    """The shares equal those counted from the two checkpoints, and both stand in the report."""
    table = project.load("mine.own_sign_agreement.table")
    first, second = (project.load(f"mine.rit_{replica}.checkpoints").load("final") for replica in (1, 2))
    row = table[table["tensor"] == "0.weight"].iloc[0]
    assert (row["checkpoint_a"], row["checkpoint_b"]) == ("mine.rit_1@final", "mine.rit_2@final")
    signs = [np.sign(one.state_dict["0.weight"].numpy()) for one in (first, second)]
    assert row["agreement"] == pytest.approx(np.mean(signs[0] == signs[1]))
    assert project.load("mine.own_agreement_by_pair.figure").png.stat().st_size > 1000
    report = project.load("report")
    assert "Analyses of your own" in report
    assert "sign agreement" in report


def test_the_claim_is_decided(project: Project) -> None:
    """The claim of one's own has a row, here without fine-tuned runs to compare."""
    claims = project.load("claims").set_index("id")
    assert claims.loc["agreement", "verdict"] == "cannot tell"


def test_an_analysis_without_pairs_has_neither_table_nor_figure(project: Project) -> None:
    """With one run there is nothing to compare, so no node waits for a table that nobody makes."""
    params = {"runs": {"rit": {"replicas": 1}}, "analyses": {"mistakes": None}}
    plan = project.session(params=params).load_context().config_loader.plan
    assert not create_pipeline(plan).nodes
    assert (
        "mine.own_agreement_by_pair.figure"
        in create_pipeline(project.session().load_context().config_loader.plan).all_outputs()
    )


def test_a_format_in_a_file_begins_at_the_projects_folder(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative file is that of the project, whatever the working folder holds."""
    monkeypatch.chdir(project.folder / "conf")
    params = {"tasks": {"mine": {"format": "src/my_formats.py:CsvList"}}}
    plan = project.session(params=params).load_context().config_loader.plan
    assert plan.study.tasks["mine"].format == "src/my_formats.py:CsvList"


def test_a_format_that_cannot_read_is_refused(tmp_path: Path) -> None:
    """A class without `read` is named, with what it lacks, before any image is listed."""
    (tmp_path / "silent.py").write_text(
        "from transferscope.images.source import ImageFormat\nclass Silent(ImageFormat): pass\n"
    )
    with pytest.raises(UserError, match=r"Silent is no subclass of .*ImageFormat with a method `read`"):
        format_class(f"{tmp_path}/silent.py:Silent")


def test_an_edited_network_trains_anew(project: Project) -> None:
    """The fingerprint of a run follows from the file of its network."""
    before = project.session().load_context().config_loader.plan.runs["mine.rit_1"].fingerprint
    nets = project.folder / "src" / "my_nets.py"
    nets.write_text(MODULES["src/my_nets.py"] + "\n# another\n")
    after = project.session().load_context().config_loader.plan.runs["mine.rit_1"].fingerprint
    nets.write_text(MODULES["src/my_nets.py"])
    assert after != before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "analyses.own.modules: no module is named 'own_parts_of_a_test'; put it into src/ or install it"),
        ("x = 1\n", "own_parts_of_a_test has no function that is decorated with @analysis or @figure"),
        ("import nothing_of_that_name\n", "needs the package nothing_of_that_name, which is not installed"),
        ("1 / 0\n", "own_parts_of_a_test cannot be imported: ZeroDivisionError"),
    ],
)
def test_a_wrong_module_is_one_line(
    content: str | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each mistake names the key and the module."""
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("own_parts_of_a_test", None)
    if content is not None:
        (tmp_path / "own_parts_of_a_test.py").write_text(content)
    with pytest.raises(UserError, match=message):
        own_parts(["own_parts_of_a_test"])
