"""`kedro compare`: recognised files as a study, and one line for each thing that cannot be compared."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from runpy import run_path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner
from PIL import Image
from torch import nn

from forked_kedro import kedro
from tiny_project import ROOT, make_project
from transferscope.experiment.plan import Plan, make_plan
from transferscope.experiment.study import RunKindOptions
from transferscope.framework.comparing import command
from transferscope.framework.comparing.compared_files import check_different, labels_of
from transferscope.framework.comparing.study_of_files import Comparison, task_names
from transferscope.framework.environments import STUDY_KEYS
from transferscope.models.zoo import build_model
from transferscope.pipelines import similarity
from transferscope.system.errors import UserError
from transferscope.system.nested import laid_over

SMALL = "fixup_resnet_small"
NETS = """
from torch import nn
class Plain(nn.Sequential):
    def __init__(self, num_classes, width=4):
        super().__init__(nn.Conv2d(3, width, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(width, num_classes))
def nothing(num_classes): print("no network")
"""

SCRIPTS = """
from torch import nn
from torch.nn import functional
class HeadFirst(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.fc = nn.Linear(6 * 26 * 26, num_classes)
        self.layers = nn.Sequential(nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6))
    def forward(self, x):
        x = functional.relu(self.layers(x))
        return functional.log_softmax(self.fc(x.view(-1, 6 * 26 * 26)), dim=1)
"""


def save(path: Path, model: nn.Module) -> str:
    torch.save({"state_dict": model.state_dict(), "epoch": 3}, path)
    return str(path)


def moved(model: nn.Module, by: float) -> nn.Module:
    """The network, each weight a little beside where it was, as fine-tuning leaves it."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(by * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files of a parent with 5 classes, two fine-tunings of it, an unrelated network, another one; images."""
    for name, seed, by, classes in (("p", 1, 0.0, 5), ("a", 1, 0.01, 3), ("b", 1, 0.02, 3), ("u", 9, 0.0, 3)):
        save(tmp_path / f"{name}.pth", moved(build_model(SMALL, classes, seed=seed), by))
    save(tmp_path / "squeeze.pth", build_model("squeezenet1_1", 3, seed=1))
    generator = np.random.default_rng(0)
    for place, name in enumerate(("ant", "bee", "cat")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for index in range(16):
            picture = generator.integers(0, 160, (20, 20, 3), dtype=np.uint8)
            picture[5 * place : 5 * place + 5] = 230
            Image.fromarray(picture).save(tmp_path / "photos" / name / f"{index}.png")
    return tmp_path


def compared(folder: Path, *names: str, **options: Any) -> Comparison:
    given: dict[str, Any] = {"images": (), "models": (), "parent": None, "classes": None, "pairs": None}
    given |= {"max_images": 1000, "size": None, "params": {}}
    for key in ("parent", "classes"):
        if options.get(key):
            options[key] = str(folder / options[key])
    if isinstance(options.get("images"), str):
        options["images"] = [options["images"]]
    options["images"] = [str(folder / name) for name in options.get("images", ())]
    return command.read([str(folder / name) for name in names], **given | options)


def planned(comparison: Comparison) -> Plan:
    """The plan of the environment that the command runs in, with the study of the files."""
    written = yaml.safe_load((ROOT / "conf" / command.ENVIRONMENT / "parameters.yml").read_text())
    kept = {key: value for key, value in written.items() if key not in (*STUDY_KEYS, "inherit_study")}
    given = {key: value for key, value in comparison.parameters().items() if key != "inherit_study"}
    return make_plan(laid_over(kept | {"pictures": {"store_size": 16}}, given))


@pytest.mark.parametrize("option", ["--images", "--output", "--parent", "--classes", "--model"])
def test_empty_names_are_refused(option: str) -> None:
    """As of a variable of the shell that is not set: they would stand for the working folder, or for no option."""
    done = CliRunner().invoke(command.compare, ["a.pth", "b.pth", option, ""])
    assert done.exit_code == 1
    assert f"{option} is given an empty name" in done.output


def test_two_files_become_a_study(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Recognised and printed; a valid plan of one pair, its line and a merge, on half of the images each."""
    plan = planned(compared(folder, "a.pth", "b.pth", images="photos"))
    assert [run.full_name for run in plan.runs.values()] == ["images.a_1", "images.b_1"]
    assert {run.model.name for run in plan.runs.values()} == {SMALL}
    assert [pair.kind for pair in plan.pairs("images", plan.study.analyses.landscape.pairs)] == ["a & b"]
    assert plan.merges()[0].candidates == ("images.a_1", "images.b_1")
    printed = capsys.readouterr().out
    assert f"a: {SMALL}, 3 classes, colour images (all " in printed
    assert "3 classes; 24 test images to judge by, and 24 for" in printed


def test_networks_as_scripts_define_them_are_compared(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Grey images of one size, a classifier registered before the body: size, channels and normalisation are printed.

    Images are shown at the size that the networks take, with images and without.
    """
    (folder / "nets.py").write_text(SCRIPTS)
    for name, seed in (("x.pth", 1), ("y.pth", 2)):
        torch.manual_seed(seed)
        network = run_path(str(folder / "nets.py"))["HeadFirst"](3)
        torch.save({"net": network.state_dict(), "acc": 91.2, "epoch": 7, "optimizer": {"state": {}}}, folder / name)
    options = {"models": (f"{folder}/nets.py:HeadFirst",), "params": {"pictures": {"mean": [0.1307], "std": [0.3081]}}}
    comparison = compared(folder, "x.pth", "y.pth", images="photos", **options)
    assert [(file.num_classes, file.image_side, file.channels) for file in comparison.files] == [(3, 28, 1)] * 2
    assert planned(comparison).study.pictures.store_size == 28
    printed = capsys.readouterr().out
    assert "x: nets.py:HeadFirst, 3 classes, grey images of 28 px (as --model says)" in printed
    assert "images are normalised by mean 0.1307 and std 0.3081; no file says" in printed
    assert planned(compared(folder, "x.pth", "y.pth", **options)).study.pictures.store_size == 28
    compared(folder, "a.pth", "b.pth", images="photos")
    assert "mean 0.485, 0.456, 0.406 and std 0.229, 0.224, 0.225 (ImageNet's)" in capsys.readouterr().out


def test_most_images_are_drawn_where_there_are_more(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Half of them for judging, of each class alike, and it is said."""
    comparison = compared(folder, "a.pth", "b.pth", images="photos", max_images=30)
    assert "15 test images to judge by, and 15 for statistics of BatchNorm and of channels, drawn of 48" in str(
        comparison.images["images"]
    )
    task = planned(comparison).study.tasks["images"]
    source = task.layout.read(Path(str(task.root)), "images")
    assert [len(part) for part in (source.train, source.test)] == [15, 15]
    assert np.bincount(source.test.labels).tolist() == [5, 5, 5]


def test_two_architectures_give_all_that_is_defined(folder: Path) -> None:
    """Mistakes, features and spectra; a sentence for each of distance, line and merge; no node of a distance."""
    comparison = compared(folder, "a.pth", "squeeze.pth", images="photos")
    plan = planned(comparison)
    analyses = plan.study.analyses
    assert analyses.landscape is analyses.merging is None
    assert analyses.mistakes.pairs == analyses.similarity.pairs == (("a", "b"),)
    sentences = list(comparison.undefined())
    assert len(sentences) == 3
    assert all(SMALL in sentence and "squeezenet1_1" in sentence for sentence in sentences)
    names = [node.name for node in similarity.create_pipeline(plan).nodes]
    assert "images.similarity.measure_cka" in names
    assert not {"images.similarity.distance_a_1__b_1", "images.similarity.gather_distances"} & set(names)


def test_several_folders_are_a_task_each(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both files are compared on the images of each, and one merge is judged on all; a folder twice is refused."""
    (folder / "Photos 2").symlink_to(folder / "photos")
    shutil.copytree(folder / "photos", folder / "other/photos")
    plan = planned(compared(folder, "a.pth", "b.pth", images=["photos", "other/photos"]))
    assert [run.full_name for run in plan.runs.values()] == [
        f"{task}.{kind}_1" for kind in "ab" for task in ("photos", "photos_2")
    ]
    assert plan.targets() == ["photos", "photos_2"]
    (merge,) = plan.merges()
    assert (merge.candidates, merge.tasks) == (("photos.a_1", "photos.b_1"), ("photos", "photos_2"))
    assert capsys.readouterr().out.count("24 test images to judge by") == 2
    with pytest.raises(UserError, match=r"photos is given twice: give each folder of images once"):
        compared(folder, "a.pth", "b.pth", images=["photos", "Photos 2"])
    assert task_names(["/x/Photos of 2020", "/y/origin", "/z/3d"]) == ["photos_of_2020", "images_origin", "images_3d"]
    assert task_names(["/x/photos_3", "/y/photos", "/z/photos", "/z/all"]) == [
        "photos_3", "photos", "photos_2", "images_all",
    ]  # fmt: skip


def test_without_images_distances_and_spectra_are_left(folder: Path) -> None:
    """Of the other analyses a sentence says that they need images."""
    comparison = compared(folder, "a.pth", "b.pth")
    plan = planned(comparison)
    assert not plan.has_images("images")
    assert plan.study.analyses.merging is None
    assert "without --images there are no mistakes" in next(comparison.undefined())
    assert "images of 64 px" in next(comparison.undefined())
    assert plan.study.pictures.store_size == 64
    assert planned(compared(folder, "a.pth", "b.pth", size=32)).study.pictures.store_size == 32


def test_a_parent_gives_distances_and_merges_from_it(folder: Path) -> None:
    """Its classes may be others; the merges start from it, and the distance to it is one of the same network."""
    plan = planned(compared(folder, "a.pth", "b.pth", images="photos", parent="p.pth"))
    assert plan.compares_files
    (merge,) = plan.merges()
    assert merge.parent == "origin.p_1"
    assert {"task_arithmetic", "ties", "wise_ft"} <= set(merge.methods)
    assert plan.targets() == ["images"]
    names = [node.name for node in similarity.create_pipeline(plan).nodes]
    assert "images.similarity.distance_images_a_1__origin_p_1" in names
    alone = planned(compared(folder, "a.pth", images="photos", parent="p.pth"))
    assert alone.merges()[0].methods == ("wise_ft", "task_arithmetic", "ties")


@pytest.mark.parametrize(("pairs", "number"), [(None, 5), ("consecutive", 5), ("first", 5), ("all", 15)])
def test_many_files_are_one_kind_whose_pairs_grow_as_asked(folder: Path, pairs: str | None, number: int) -> None:
    """Six epochs: a pair of each with the first one, unless others are asked for."""
    names = [f"epoch_{epoch}.pth" for epoch in range(6)]
    for epoch, name in enumerate(names):
        save(folder / name, moved(build_model(SMALL, 3, seed=1), 0.01 * epoch))
    plan = planned(compared(folder, *names, images="photos", pairs=pairs))
    pairs_of_plan = plan.pairs("images", [("m", "m")])
    assert len(pairs_of_plan) == number
    assert len(plan.merges()[0].candidates) == 6
    if pairs in (None, "first"):
        assert {pair.run_a.name for pair in pairs_of_plan} == {"m_1"}


def test_a_parent_called_as_the_series_is_has_a_name_of_its_own(folder: Path) -> None:
    """Six epochs are `model` in figures, unless their parent's file is."""
    for name in ("model.pth", *(f"epoch_{epoch}.pth" for epoch in range(6))):
        save(folder / name, build_model(SMALL, 3, seed=1))
    plan = planned(compared(folder, *(f"epoch_{epoch}.pth" for epoch in range(6)), images="photos", parent="model.pth"))
    assert {run.label for run in plan.runs.values()} == {"file", "model"}


BAD: list[tuple[tuple[str, ...], dict[str, Any], str]] = [
    (("a.pth", "a.pth"), {}, r"a.pth is given twice: name another file"),
    (("a.pth",), {}, "give two checkpoint files at least, or one and its --parent"),
    (("a.pth", "nan.pth"), {}, "nan.pth: .* values of .* are infinite or not a number: the training has diverged"),
    (("a.pth", "none.pth"), {}, "none.pth does not exist: check the path"),
    (("a.pth", "other.pth"), {}, r"other.pth: no network that is known here .*--model file.py:function"),
    (
        ("p.pth", "b.pth"),
        {"images": "photos"},
        r"p has 5 classes, and .*photos has folders of 3 \(ant, bee, cat\).*--cla",
    ),
    (("a.pth", "b.pth"), {"images": "empty"}, "empty: .*a folder of its own|empty.*train/"),
    (("a.pth", "b.pth"), {"images": "nowhere"}, "nowhere"),
    (("a.pth", "b.pth"), {"parent": "u.pth"}, r"--parent: .*u.pth is no parent of a: their weights correlate by"),
    (("a.pth", "b.pth"), {"parent": "squeeze.pth"}, "--parent .*squeeze.pth is a squeezenet1_1, and a a fixup"),
    (
        ("a.pth", "b.pth"),
        {"models": ("{}/nets.py:nothing",)},
        "returned None, not a .*: let it return the network",
    ),
    (("a.pth", "b.pth"), {"models": ("resnet18",)}, "a.pth does not fit resnet18|a.pth has no tensor"),
    (
        ("a.pth", "squeeze.pth"),
        {"models": (SMALL,)},
        "squeeze.pth has no tensor .* the classifier of .*: if it is anot",
    ),
    (("a.pth", "b.pth"), {"params": {"model": "resnet18"}}, "--params model: write model.options.width=16"),
    (("a.pth", "b.pth"), {"params": {"model": {"options": 3}}}, "--params model: write model.options.width=16"),
    (("a.pth", "b.pth"), {"params": {"model": {"name": "resnet18"}}}, "the architecture itself is given by --model"),
    *(
        (("a.pth", "b.pth"), {"params": {"model": {"options": {option: 2}}}}, rf"model.options: {option} is not taken")
        for option in ("num_classes", "seed", "name")
    ),
    *(
        (("a.pth", "b.pth"), {"params": {"pictures": value}}, rf"--params pictures{message}")
        for value, message in (
            ({"mean": 0.5}, r".mean: needs a list, as \[a, b\] \(got 0.5\)"),
            ({"std": ["a", 1, 1]}, ".std.0: Input should be a valid number"),
            ({"mean": "abc"}, ".mean: needs a list"),
            (3, ": needs `key: value` lines below it"),
        )
    ),
    (("a.pth", "b.pth"), {"models": (SMALL, SMALL, SMALL)}, "--model is given 3 times for 2 files"),
    (("a.pth", "b.pth", "squeeze.pth", "u.pth", "c.pth", "d.pth"), {}, "6 files of 2 networks .*: at most 5 files"),
]


@pytest.mark.parametrize(("names", "options", "message"), BAD, ids=[message[:30] for *_, message in BAD])
def test_what_cannot_be_compared_is_one_line(
    folder: Path, names: tuple[str, ...], options: dict[str, Any], message: str
) -> None:
    """The file, what is wrong, and the fix."""
    broken = build_model(SMALL, 3, seed=1)
    with torch.no_grad():
        broken.conv1.weight.fill_(torch.nan)
    save(folder / "nan.pth", broken)
    save(folder / "other.pth", nn.Sequential(nn.Conv2d(3, 2, 3), nn.Linear(2, 3)))
    for name in ("c.pth", "d.pth"):
        save(folder / name, moved(build_model(SMALL, 3, seed=1), 0.03))
    (folder / "empty").mkdir()
    (folder / "nets.py").write_text(NETS)
    options = {
        key: tuple(v.format(folder) for v in value) if key == "models" else value for key, value in options.items()
    }
    with pytest.raises(UserError, match=message) as raised:
        compared(folder, *names, **options)
    assert len(str(raised.value).splitlines()) == 1


def test_consecutive_files_are_in_the_order_of_their_numbers(folder: Path) -> None:
    """As a shell gives them, epoch_10 stands before epoch_2."""
    for epoch in (1, 2, 10):
        save(folder / f"epoch_{epoch}.pth", moved(build_model(SMALL, 3, seed=1), 0.01 * epoch))
    comparison = compared(folder, "epoch_1.pth", "epoch_10.pth", "epoch_2.pth", pairs="consecutive")
    assert [file.label for file in comparison.files] == ["epoch_1", "epoch_2", "epoch_10"]
    assert [(pair.run_a.label, pair.run_b.label) for pair in planned(comparison).pairs("images", [("a", "b"), ("b", "c")])] == [
        ("epoch_1", "epoch_2"), ("epoch_2", "epoch_10"),
    ]  # fmt: skip
    assert len(planned(comparison).study.analyses.similarity.pairs) == 2


def test_a_function_of_ones_own_is_a_model(folder: Path) -> None:
    """A class in a file, which takes num_classes and options."""
    (folder / "nets.py").write_text(NETS)
    layers = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3))
    for name in ("x.pth", "y.pth"):
        save(folder / name, layers)
    options = {"params": {"model": {"options": {"width": 6}}}, "models": (f"{folder}/nets.py:Plain",)}
    comparison = compared(folder, "x.pth", "y.pth", images="photos", **options)
    assert [file.num_classes for file in comparison.files] == [3, 3]
    assert planned(comparison).runs["images.a_1"].model.options == {"width": 6}


def test_weights_of_a_file_are_chosen_by_params(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the error of a file with two sets of weights advises is taken; those taken by default are said."""
    sets = {seed: moved(build_model(SMALL, 3, seed=1), 0.01 * seed).state_dict() for seed in (1, 2)}
    torch.save({"best": sets[1], "last": sets[2]}, folder / "two.pth")
    torch.save({"model": sets[1], "model_ema": sets[2]}, folder / "ema.pth")
    with pytest.raises(UserError, match=r"holds weights under best, last: choose by --params runs.b.weights=..."):
        compared(folder, "a.pth", "two.pth")
    for name, key in (("two.pth", "last"), ("ema.pth", "model_ema")):
        chosen = compared(folder, "a.pth", name, params={"runs": {"b": {"weights": key}}}).files[1]
        assert torch.equal(chosen.load().state_dict["fc.weight"], sets[2]["fc.weight"])
        assert "runs.b.weights" not in capsys.readouterr().out
    compared(folder, "ema.pth", "b.pth")
    assert "'model'; --params runs.a.weights=... takes others: model_ema" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"--params runs.a.weights: must be text, e.g. weights=model_ema \(got 3\)"):
        compared(folder, "ema.pth", "b.pth", params={"runs": {"a": {"weights": 3}}})


def test_names_that_no_label_can_be_are_shortened() -> None:
    """To fewer letters than a label may have, all different, and without what a terminal would obey."""
    labels = labels_of(["/x/" + "n" * 240 + ".pth", "/y/" + "n" * 240 + ".pth", "/z/a\tb.pth"])
    assert len(set(labels)) == 3
    assert [RunKindOptions(label=label, tasks=["t"]).label for label in labels] == labels


def test_labels_tell_files_apart_by_as_little_as_it_takes() -> None:
    """The stem, and folders where stems are equal."""
    assert labels_of(["/x/one.pth", "/x/two.tar"]) == ["one", "two"]
    assert labels_of(["/x/run1/best.pth", "/x/run2/best.pth"]) == ["run1/best", "run2/best"]
    assert labels_of(["hf_hub:timm/a", "/x/b.pth"]) == ["a", "b"]


def test_a_link_to_a_file_is_the_file(tmp_path: Path) -> None:
    """A copy is another one."""
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "copy").write_bytes(b"1")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    check_different([str(tmp_path / "a"), str(tmp_path / "copy")])
    with pytest.raises(UserError, match="twice"):
        check_different([str(tmp_path / "a"), str(tmp_path / "link")])


def test_one_command_from_files_to_the_report_and_the_merged_model(folder: Path) -> None:
    """Three files with their parent and images: what it does is said first, and everything lies in the output."""
    project = folder / "project"
    project.mkdir()
    make_project(project)
    six = ("--images", "../photos", "--max-images", "6", "--output", "../few")
    few = kedro(project, "compare", "../a.pth", "../b.pth", *six)
    refusal = "tasks.images: of 3 test images there is no similarity of features"
    assert (few.returncode, few.stderr.count(refusal)) == (1, 1), few.stderr
    assert not (folder / "few" / "06_models").exists()
    params = "analyses.landscape.connection=null,analyses.similarity.batch_size=8,analyses.mistakes.bootstrap=20"
    done = kedro(
        project, "compare", *(f"../{name}.pth" for name in "abu"), "--images", "../photos", "--max-images", "32",
        "--size", "16", "--output", "../out", "--params", f"{params},analyses.landscape.alphas.points=3",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "reading ../a.pth, ../b.pth, ../u.pth"
    assert any(line.startswith(f"u: {SMALL}, 3 classes") for line in lines)
    assert "passes of an image of 16 px" in " ".join((done.stdout + done.stderr).split())
    out = folder / "out"
    assert (out / "08_reporting" / "report.html").is_file()
    answers = json.loads((out / "08_reporting" / "answers.json").read_text())["answers"]
    first = lines.index(f"1. {answers[0]['question']}")
    assert lines[first + 1] == f"   {answers[0]['answer']}"
    for name in ("disagreement", "barrier", "cka", "distance"):
        assert (out / "08_reporting" / "images" / f"{name}_matrix.png").is_file()
    merged = out / "07_model_output" / "images" / "merged" / "average"
    assert json.loads((merged / "card.json").read_text())["method"]
    assert not (project / "data" / "compare").exists()
    again = compared(folder, "a.pth", f"{merged}/merged.safetensors", images="photos")
    assert again.files[1].model == SMALL
