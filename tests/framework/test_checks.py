"""What is found before the first node: files, classes, networks, packages."""

from __future__ import annotations

import dataclasses
import importlib.util
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from transferscope.analysis.hsic import MIN_EXAMPLES
from transferscope.datasets.picture_size import choose_size
from transferscope.experiment.options import LEAST_EXAMPLES
from transferscope.experiment.plan import Plan, make_plan
from transferscope.experiment.study import TaskOptions
from transferscope.framework import checks, expected_time, network_checks
from transferscope.models.zoo import build_model
from transferscope.system.errors import UserError
from transferscope.system.references import allow

CLASSES = ("cat", "dog", "emu")
NETWORK = {"name": "fixup_resnet_small", "options": {"widths": [4, 8, 8]}}


def study(**runs: Any) -> Plan:
    return make_plan(
        {
            "tasks": {"photos": {"format": "image_folder", "root": "photos", "test_share": 0.5}},
            "model": NETWORK,
            "pictures": {"store_size": 16},
            "runs": {name: {"label": name, "tasks": ["photos"], **options} for name, options in runs.items()},
            "analyses": {"mistakes": None, "similarity": None, "landscape": None, "spectrum": None},
        }
    )


def file(path: Path, num_classes: int = 3, **options: Any) -> dict[str, Any]:
    """A run that is a checkpoint file with fresh weights."""
    made = {**NETWORK["options"], **options}  # type: ignore[dict-item]
    torch.save(build_model("fixup_resnet_small", num_classes, seed=1, **made).state_dict(), path)
    return {"initialisation": "checkpoint", "checkpoint": str(path)}


def faults(plan: Plan, classes: tuple[str, ...] | None = CLASSES) -> list[str]:
    return list(
        network_checks.networks_faults(plan, plan.runs.values(), {} if classes is None else {"photos": classes})
    )


@pytest.mark.parametrize(
    ("root", "data", "fault"),
    [
        (
            "ph",
            "ph",
            "tasks.photos.root: the images in {0}/ph hold the folder of results {0}/ph: change data in globals",
        ),
        ("ph", "ph/out", "tasks.photos.root: the images in {0}/ph hold the folder of results {0}/ph/out: change data"),
        (
            "link",
            "ph/out",
            "tasks.photos.root: the images in {0}/ph hold the folder of results {0}/ph/out: change data",
        ),
        (
            "data/08_reporting/ph",
            "data",
            "tasks.photos.root: {0}/data/08_reporting/ph lies among the results in {0}/data",
        ),
        ("models/photos", "data", "tasks.photos.root: {0}/models/photos lies among the results in {0}/data"),
        (".", "data", "tasks.photos.root: the images in {0} hold the folder of results {0}/data: change data"),
        ("data/01_raw/ph", "data", None),
        ("ph", "ph_out", None),
    ],
)
def test_images_and_results_lie_apart(tmp_path: Path, root: str, data: str, fault: str | None) -> None:
    """Neither holds the other, links followed, except for images in `01_raw`."""
    (tmp_path / "link").symlink_to(tmp_path / "ph")
    task = study(a={"initialisation": "random"}).study.tasks["photos"]
    tasks = {"photos": task.placed(lambda path: str(tmp_path / root))}
    found = list(checks.places_faults(tasks, tmp_path / data, tmp_path / "models"))
    assert len(found) == (fault is not None)
    assert all(line.startswith(str(fault).format(tmp_path)) for line in found)


def test_weights_that_fit_are_no_fault(tmp_path: Path) -> None:
    """With the classes of the images known or not, also without images."""
    plan = study(a=file(tmp_path / "a.pth"))
    assert faults(plan) == []
    assert faults(plan, None) == []


def test_every_file_at_fault_is_named_with_its_key(tmp_path: Path) -> None:
    """One that is not there, one of another width, one of one channel, one that is no checkpoint: four lines."""
    (tmp_path / "text.pth").write_text("hello")
    grey = torch.load(file(tmp_path / "c.pth")["checkpoint"], weights_only=True)
    grey["conv1.weight"] = grey["conv1.weight"][:, :1].clone()
    torch.save(grey, tmp_path / "c.pth")
    plan = study(
        a={"initialisation": "checkpoint", "checkpoint": str(tmp_path / "mistyped.pth")},
        b=file(tmp_path / "b.pth", widths=[8, 8, 8]),
        c={"initialisation": "checkpoint", "checkpoint": str(tmp_path / "c.pth")},
        d={"initialisation": "checkpoint", "checkpoint": str(tmp_path / "text.pth")},
        e=file(tmp_path / "e.pth"),
    )
    messages = faults(plan, None)
    assert [fault.split(":")[0] for fault in messages] == [f"runs.{name}.checkpoint" for name in "abcd"]
    for fault, name in zip(messages, ("mistyped.pth", "b.pth", "c.pth", "text.pth"), strict=True):
        assert name in fault
        assert "\n" not in fault


def test_other_classes_than_the_images_have_name_class_list(tmp_path: Path) -> None:
    """Three of the model's ten classes: the line says which option takes their names."""
    (fault,) = faults(study(a=file(tmp_path / "a.pth", num_classes=10)))
    assert "its classifier has 10 classes" in fault
    assert "the images of photos have 3 (cat, dog, emu)" in fault
    assert "tasks.photos.class_list" in fault


def test_a_start_from_another_network_is_a_fault(tmp_path: Path) -> None:
    """A training from a file is checked as a file is; its number of classes may differ."""
    wide, ten = tmp_path / "wide.pth", tmp_path / "ten.pth"
    file(wide, widths=[8, 8, 8])
    file(ten, num_classes=10)
    starts = {
        name: {"initialisation": "pretrained", "pretrained": str(path)} for name, path in (("x", wide), ("y", ten))
    }
    (fault,) = faults(study(**starts))
    assert fault.startswith("runs.x.pretrained: ")
    assert "wide.pth" in fault


def test_an_unknown_network_is_one_fault_for_all_runs() -> None:
    """Each network is tried once."""
    plan = study(a={"replicas": 3, "model": {"name": "resnet51"}}, b={})
    (fault,) = faults(plan)
    assert fault.startswith("model resnet51: unknown model 'resnet51'")


def test_a_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many runs start from it."""
    path = tmp_path / "p.pth"
    file(path)
    read: list[str] = []
    before = network_checks._check_file
    monkeypatch.setattr(network_checks, "_check_file", lambda name, run: read.append(name) or before(name, run))
    plan = study(a={"replicas": 5, "initialisation": "pretrained", "pretrained": str(path)})
    assert faults(plan) == []
    assert read == [str(path)]


def test_a_network_of_many_runs_is_built_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checks take seconds, however many runs of a large network there are."""
    built: list[str] = []
    monkeypatch.setattr(network_checks, "_network_fault", lambda model: built.append(model.name))
    plan = study(a={"replicas": 3}, b={"model": {"options": {"widths": [4, 8, 16]}}, "replicas": 2})
    assert len(plan.runs) == 5
    assert faults(plan) == []
    assert built == ["fixup_resnet_small"] * 2


def test_images_of_a_size_that_the_network_refuses() -> None:
    """A transformer of 224 px is tried on one blank image of the size that it will see."""
    plan = study(a={"model": {"name": "vit_b_16"}}, b={})
    (fault,) = network_checks.sizes_faults(plan, plan.runs.values())
    assert fault.startswith("tasks.photos.pictures: 16 pixels: vit_b_16 does not take images of this size")


BROKEN = """
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3)
        self.fc = nn.Linear(4, num_classes)

    def forward(self, x):
        return self.fc(self.first(x).mean((2, 3)).view(len(x), 4 / 1))
"""


def test_a_network_that_no_image_passes_is_not_a_matter_of_size(tmp_path: Path) -> None:
    """As one of an old repository whose `view` has a float."""
    (tmp_path / "old.py").write_text(BROKEN)
    name = f"{tmp_path / 'old.py'}:Net"
    allow(name)
    plan = study(a={"model": {"name": name}})
    (fault,) = network_checks.sizes_faults(plan, plan.runs.values())
    assert "takes images neither of this nor of usual sizes (view()" in fault
    assert "correct its code" in fault


@pytest.mark.parametrize(
    ("name", "options"),
    [("timm/lcnet_035", {"in_chans": 4}), ("timm/vit_tiny_patch16_224", {"in_chans": 2, "img_size": 16})],
)
def test_networks_of_other_channels_than_images_have(tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    """One line for trained runs and files of that network, before any image is packed."""
    path = tmp_path / "a.pth"
    torch.save(build_model(name, 3, seed=0, **options).state_dict(), path)
    model = {"name": name, "options": options}
    plan = study(
        a={"model": model},
        b={"model": model, "initialisation": "checkpoint", "checkpoint": str(path)},
        c={},
    )
    assert faults(plan) == []
    (fault,) = network_checks.sizes_faults(plan, plan.runs.values())
    assert fault == (
        f"model {name}: the model takes images of {options['in_chans']} channels, but images have 1 (grey) or 3 "
        "(colour): take a model of 1 or 3 input channels"
    )


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ("{'logits': y}", "Net puts out a dict: return logits alone"),
        ("(y, y)", "Net puts out a tuple: return logits alone"),
        ("y[:, :, None]", "Net puts out a tensor of 3 axes: return logits alone"),
        ("y + torch.randn(1)", "Net puts out other values when the same image comes again"),
        ("nn.functional.dropout(y)", "Net puts out other values when the same image comes again"),
        ("y - y.mean(0)", "Net puts out other values for an image when other images are in its batch"),
        ("nn.BatchNorm1d(2, track_running_stats=False).eval()(y)", "Net puts out other values for an image when"),
        ("y.softmax(1)", "Net puts out probabilities, of which losses would be wrong: return logits"),
        (
            "y.sigmoid()",
            "Net puts out probabilities, of which losses would be wrong: return logits, without the sigmoid",
        ),
        (
            "nn.Sequential(nn.Sigmoid(), nn.Flatten())(y)",
            "Net puts out probabilities, of which losses would be wrong: return logits, without",
        ),
    ],
)
def test_networks_whose_output_cannot_be_measured(tmp_path: Path, returned: str, message: str) -> None:
    """Anything but logits of each image alone is a line before anything is trained, as is dropout that does not end."""
    (tmp_path / "own.py").write_text(
        "import torch\nfrom torch import nn\n\n\nclass Net(nn.Module):\n    def __init__(self, num_classes):\n"
        "        super().__init__()\n        self.conv, self.fc = nn.Conv2d(3, 8, 3), nn.Linear(8, num_classes)\n\n"
        f"    def forward(self, x):\n        y = self.fc(self.conv(x).mean((2, 3)))\n        return {returned}\n"
    )
    name = f"{tmp_path}/own.py:Net"
    allow(name)
    plan = study(a={"model": {"name": name}})
    (fault,) = network_checks.sizes_faults(plan, plan.runs.values())
    assert fault.startswith(f"model {name}: {message}")


def test_networks_of_one_channel_are_no_fault() -> None:
    """They see grey."""
    plan = study(a={"model": {"name": "timm/lcnet_035", "options": {"in_chans": 1}}})
    assert list(network_checks.sizes_faults(plan, plan.runs.values())) == []


def test_packages_that_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorBoard and the compiler are looked for only where trainings, or analyses that run, ask for them."""

    def packages(plan: Plan, *, analyses: bool = False) -> list[str]:
        return list(checks.packages_faults(plan, plan.runs.values(), analyses=analyses))

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "tensorboard" else find(name))
    monkeypatch.setattr(checks.shutil, "which", lambda _: None)
    assert packages(study(a={})) == []
    asked = study(a={"training": {"tensorboard": True, "compile": True}})
    first, second = packages(asked)
    assert first.startswith("training.tensorboard: the package tensorboard is not installed")
    assert second.startswith("training.compile: ")
    plain = study(a={})
    measured = plain.study.analyses.model_copy(update={"compile": True})
    compiled = dataclasses.replace(plain, study=plain.study.model_copy(update={"analyses": measured}))
    assert packages(compiled) == []
    (fault,) = packages(compiled, analyses=True)
    assert fault.startswith("analyses.compile: torch compiles with a C++ compiler")


def test_all_folders_at_fault_are_listed() -> None:
    """Each error of reading is a line that names its task; the classes of the others are known."""

    def load(task: str) -> Any:
        if task == "a":
            return SimpleNamespace(class_names=CLASSES, train=[1] * 8, test=[1] * 4, unreadable=())
        raise UserError(f"folder of {task} is empty")

    known: dict[str, Any] = {}
    sizes: dict[str, Any] = {}
    assert list(checks.images_faults(["a", "b", "c"], load, known, sizes)) == [
        "tasks.b: folder of b is empty",
        "tasks.c: folder of c is empty",
    ]
    assert known == {"a": CLASSES}
    assert sizes == {"a": (8, 4)}


def test_too_few_test_images_for_features_are_refused(tmp_path: Path) -> None:
    """Three of them, with both remedies; four are enough, as they are for the estimator."""
    plan = study(a={"initialisation": "checkpoint", "checkpoint": str(tmp_path / "a.pth")})
    (fault,) = checks.examples_faults(plan, {"images": 3, "others": LEAST_EXAMPLES})
    assert fault == (
        "tasks.images: of 3 test images there is no similarity of features, which takes 4: give more images (kedro "
        "compare: or a larger --max-images), or leave it out by --params analyses.similarity=null"
    )
    assert LEAST_EXAMPLES == MIN_EXAMPLES


def test_a_file_where_a_folder_is_to_be_written(tmp_path: Path) -> None:
    """Named with its key, also where it stands above; folders that are there or not are no fault."""
    (tmp_path / "file").touch()
    written = {"tasks.a.root": "file", "models_folder": "file/x/y", "tasks.b.root": "new/x", "tasks.c.root": "."}
    faults = checks.folders_faults((key, str(tmp_path / path)) for key, path in written.items())
    assert list(faults) == [
        f"{key}: {tmp_path}/file is a file, where a folder is to be written: name another"
        for key in ("tasks.a.root", "models_folder")
    ]


@pytest.mark.parametrize(("dropping", "lines"), [((), 1), (("a",), 0)])
def test_links_to_nothing_are_a_line_before_anything_is_packed(dropping: tuple[str, ...], lines: int) -> None:
    """The first is named with its remedies, and how many more there are; none where bad images are dropped."""
    broken = ("a/1.png: is a link to nothing and no image", "a/2.png: is a named pipe and no image")
    source = SimpleNamespace(class_names=CLASSES, train=[1] * 8, test=[1] * 4, unreadable=broken)
    assert (
        list(checks.images_faults(["a"], lambda _: source, {}, {}, dropping))
        == [
            "tasks.a: a/1.png: is a link to nothing and no image (and 1 more): remove it or bring the file back, or set "
            "on_bad_image to drop"
        ][:lines]
    )


def test_options_that_have_no_effect_on_a_file_are_named(tmp_path: Path) -> None:
    """The training of a run that is a file, and the epoch of one that starts from a file; not those that count."""
    given = {"training": {"lr": 0.1}}
    started = {"initialisation": "pretrained", "pretrained": "p.pth", "pretrained_epoch": "best"}
    plan = study(a=file(tmp_path / "a.pth") | given, b={**started, **given}, c={"pretrained_epoch": 3} | given)
    assert list(checks.unused_keys(plan, plan.runs.values())) == [
        f"runs.a.training has no effect: its weights are read from {tmp_path / 'a.pth'}",
        "runs.c.pretrained_epoch has no effect: it starts from random weights",
        "runs.b.pretrained_epoch has no effect: its weights are read from p.pth",
    ]
    assert list(checks.unused_keys(study(c=given), study(c=given).runs.values())) == []


def test_gpus_without_what_the_plan_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two GPUs the one without bfloat16 is named; where no run asks for it, none is."""
    names, versions = ("NVIDIA A100", "Tesla T4"), ((8, 0), (7, 5))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", names.__getitem__)
    monkeypatch.setattr(torch.cuda, "get_device_capability", versions.__getitem__)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_80"])
    plan = study(a={"training": {"precision": "bfloat16"}})
    (fault,) = checks.gpus_faults(plan, plan.runs.values(), analyses=True)
    assert fault.startswith("GPU 1, Tesla T4 (compute capability 7.5) has no bfloat16")
    plain = study(a={})
    assert list(checks.gpus_faults(plain, plain.runs.values(), analyses=True)) == []


def test_what_a_comparison_takes_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Passes through the network times the seconds of one; advice where that is minutes; none where nothing passes."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(expected_time, "_seconds_an_image", lambda *_: 0.5)
    plan = study(a=file(tmp_path / "a.pth"))
    runs, nodes = plan.runs.values(), ["photos.training.a_1"]
    note = expected_time.cost_note(plan, runs, nodes, {"photos": (300, 100)})
    assert note is not None
    assert note.startswith("at least 400 passes of an image of 16 px through fixup_resnet_small: about 3 min 20 s")
    assert "make it less" in note
    short = expected_time.cost_note(plan, runs, nodes, {"photos": (30, 10)})
    assert short is not None
    assert short.endswith("about 20 s on one core of this CPU")
    assert expected_time.cost_note(plan, runs, [], {"photos": (30, 10)}) is None


def test_the_speed_is_measured() -> None:
    """A positive number of seconds, quickly."""
    started = time.perf_counter()
    assert 0 < expected_time._seconds_an_image(study(a={}).study.model, 16) < 5
    assert time.perf_counter() - started < 10


@pytest.mark.parametrize(("side", "chosen"), [(32, 32), (300, 224), (4, 8)])
def test_the_size_of_pictures_follows_from_the_images(tmp_path: Path, side: int, chosen: int) -> None:
    """The median short side, within 8 and 224; 224 where there is nothing to look at."""
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for index in range(4):
            pixels = np.full((side, side + 40 * index, 3), 20 * index, dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{index}.png")
    task = TaskOptions(format="image_folder", root=str(tmp_path), test_share=0.5)
    assert choose_size({"photos": task}) == chosen
    assert choose_size({"photos": task.model_copy(update={"root": str(tmp_path / "none")})}) == 224


def test_modules_that_a_network_lacks_are_named_with_those_it_has(tmp_path: Path) -> None:
    """Of what a run starts from and of what it does not train, once for all replicas and tasks."""
    plan = study(a=file(tmp_path / "a.pth"))
    run = next(iter(plan.runs.values())).model_copy(update={"checkpoint": None})
    frozen = run.training.model_copy(update={"frozen": ("layer9",)})
    until = run.model_copy(update={"kind": "first", "transfer_until": "layer9.0"})
    held = run.model_copy(update={"kind": "probe", "training": frozen})
    good = run.model_copy(
        update={"transfer_until": "layer1.0", "training": frozen.model_copy(update={"frozen": "features"})}
    )
    messages = list(network_checks.parts_faults([until, until, held, good, run]))
    assert len(messages) == 2
    assert messages[0].startswith(
        "runs.first.transfer_until: fixup_resnet_small: there is no module 'layer9.0'; modules are stem,"
    )
    assert messages[1].startswith(
        "runs.probe.training.frozen: fixup_resnet_small: 'layer9' matches no tensor; modules are stem,"
    )


def test_layers_and_groups_that_a_network_lacks(tmp_path: Path) -> None:
    """What similarity and the modules name is looked for before any image is packed, where the analysis will run."""
    plan = study(a=file(tmp_path / "a.pth"))
    options = plan.study.analyses.model_validate(
        {"similarity": {"layers": ["layer9"]}, "modules": {"groups": {"x": ["y"]}}}
    )
    named = replace(plan, study=plan.study.model_copy(update={"analyses": options}))
    messages = list(network_checks.layers_faults(named, named.runs.values(), {"similarity"}))
    assert messages[0].startswith(
        "analyses.similarity.layers: fixup_resnet_small has no layer 'layer9': near matches are"
    )
    assert messages[1].startswith(
        "analyses.modules.groups: fixup_resnet_small: no configured module holds the keys bias1"
    )
    assert list(network_checks.layers_faults(named, named.runs.values(), {"mistakes"})) == []
    options = plan.study.analyses.model_validate({"spectrum": {"vector_layers": ["conv9"]}})
    named = replace(plan, study=plan.study.model_copy(update={"analyses": options}))
    messages = list(network_checks.layers_faults(named, named.runs.values(), {"spectrum"}))
    assert messages[0].startswith("analyses.spectrum.vector_layers: fixup_resnet_small has no layer 'conv9'")


def test_a_network_beyond_memory_is_a_line() -> None:
    """Options with a digit too many are refused by name; torch's allocator raises no traceback."""
    model = {"name": "fixup_resnet_small", "options": {"widths": [4, 8, 10**9]}}
    plan = study(a={"model": model})
    [fault] = network_checks.networks_faults(plan, plan.runs.values(), {})
    assert fault.startswith(
        "model fixup_resnet_small: model 'fixup_resnet_small' refuses its options {'widths': [4, 8,"
    )


def grouped(groups: Any) -> Plan:
    """Two replicas on x-rays, whose flips are grouped."""
    return make_plan(
        {
            "tasks": {"chest": {"format": "chexpert", "root": "chest", "num_train": 10, "num_test": 10}},
            "runs": {"rit": {"label": "RI-T", "tasks": ["chest"], "replicas": 2}},
            "analyses": {
                "mistakes": {"pairs": [("rit", "rit")], "replace": {"groups": groups}},
                "similarity": None,
                "landscape": None,
                "spectrum": None,
            },
        }
    )


def test_a_group_column_that_is_missing_is_named_before_anything_runs() -> None:
    """The key, the task, the column and those there are; nothing where columns are not known yet, or not asked for."""
    there = pd.DataFrame({"sex": ["Male", "Female"], "view": ["Frontal", "Frontal"]})
    plan = grouped(["sex", "hospital"])
    (fault,) = checks.groups_faults(plan, lambda task: there)
    assert fault.startswith("analyses.mistakes.replace.groups: chest: its example list has no column 'hospital'; ")
    assert fault.endswith(": sex, view")
    assert not list(checks.groups_faults(plan, lambda task: None))
    assert not list(checks.groups_faults(grouped({"chest": ["view"]}), lambda task: there))
    (fault,) = checks.groups_faults(grouped(["sex"]), lambda task: pd.DataFrame(index=range(2)))
    assert "`kedro run --pipelines data_prep` packs them again" in fault


def test_groups_of_a_task_that_does_not_exist_are_refused() -> None:
    """A mistyped task in `groups` is a fault of the plan."""
    with pytest.raises(UserError, match=r"analyses\.mistakes\.replace\.groups.*chst"):
        grouped({"chst": ["sex"]})
