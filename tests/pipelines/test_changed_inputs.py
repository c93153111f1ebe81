"""A file of the user that has changed is noticed as a changed parameter is, and damage is one line with its remedy."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image

from damage import flip
from tiny_project import ROOT, make_project
from transferscope.analysis.alignment import permutation_groups, permute
from transferscope.models.zoo import build_model
from transferscope.system.errors import UserError

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("changed_inputs")]

WIDTHS = [4, 4, 4]


def draw_image(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def save_weights(path: Path, seed: int) -> None:
    torch.save(build_model("fixup_resnet_small", 2, seed=seed, widths=WIDTHS).state_dict(), path)


class Own:
    """The user's project of two checkpoint files and a folder of images, whose similarity is asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.project = make_project(folder)
        (folder / "conf" / "local" / "parameters.yml").unlink()
        (folder / "conf/own_checkpoints/globals.yml").write_text(f"data: {folder}/data\n")
        study = {
            "inherit_study": False,
            "tasks": {"images": {"format": "image_folder", "root": str(self.images), "test_share": 0.5}},
            "pictures": {"store_size": 16},
            "model": {"name": "fixup_resnet_small", "options": {"widths": WIDTHS}},
            "runs": {
                name: {
                    "label": name.upper(),
                    "tasks": ["images"],
                    "initialisation": "checkpoint",
                    "checkpoint": str(folder / f"{name}.pth"),
                }
                for name in "ab"
            },
            "analyses": {
                "mistakes": None,
                "similarity": {"pairs": [["a", "b"]], "batch_size": 8, "max_examples": 12},
                "landscape": None,
                "spectrum": None,
            },
        }
        (folder / "conf/own_checkpoints/parameters.yml").write_text(yaml.safe_dump(study))
        for number in range(24):
            draw_image(self.images / "ab"[number % 2] / f"{number}.png", number)
        for seed, name in enumerate("ab"):
            save_weights(folder / f"{name}.pth", seed)

    @property
    def images(self) -> Path:
        return self.folder / "images"

    def run(self, *pipelines: str, **options: Any) -> None:
        with self.project.session("own_checkpoints") as session:
            session.run(pipeline_names=list(pipelines) or None, **options)

    @property
    def distance(self) -> str:
        return (self.folder / "data/07_model_output/images/distances.csv").read_text()


@pytest.fixture
def own(tmp_path: Path) -> Own:
    made = Own(tmp_path)
    made.run("data_prep", "training", "similarity")
    time.sleep(0.02)
    return made


def test_another_content_of_a_checkpoint_file_is_noticed(own: Own) -> None:
    """`b.pth` overwritten: `--pipelines similarity` and `--only-missing-outputs` refuse the old results, a run makes new."""
    before = own.distance
    status = (own.folder / "b.pth").stat()
    save_weights(own.folder / "b.pth", 7)
    os.utime(own.folder / "b.pth", ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(UserError, match=r"images\.b_1\.checkpoints: made by another plan, or from another content of "):
        own.run("similarity")
    with pytest.raises(UserError, match=r"images\.b_1\.checkpoints: made by another plan, and --only-missing-outputs"):
        own.run("data_prep", "training", "similarity", only_missing_outputs=True)
    assert own.distance == before
    own.run("training", "similarity")
    assert own.distance != before
    save_weights(own.folder / "b.pth", 1)
    own.run("training", "similarity")
    assert own.distance == before


def test_without_images_the_distances_are_the_same(own: Own) -> None:
    """`root: null` measures the weights alone; with images again, what they give is there again."""
    before = own.distance
    features = own.folder / "data/07_model_output/images/cka.csv"
    assert features.is_file()
    options = {"env": "own_checkpoints", "params": {"tasks": {"images": {"root": None}}}}
    with own.project.session(**options) as session:
        session.run(pipeline_names=["data_prep", "training", "similarity"])
    assert own.distance == before
    with pytest.raises(UserError, match=r"images\.a_1\.checkpoints: made by another plan"):
        own.run("similarity")
    own.run()
    assert own.distance == before


def test_two_own_files_are_connected(own: Own) -> None:
    """With the ways of the shipped configuration: b is a with its channels in another order, so matching leaves nothing."""
    model = build_model("fixup_resnet_small", 2, seed=0, widths=WIDTHS)
    draws = torch.Generator().manual_seed(0)
    state = {
        name: value + 0.1 * torch.randn(value.shape, generator=draws) for name, value in model.state_dict().items()
    }
    groups = permutation_groups(model, torch.randn(1, 3, 16, 16))
    torch.save(state, own.folder / "a.pth")
    torch.save(permute(groups, groups.random(1), state), own.folder / "b.pth")
    shipped = yaml.safe_load((ROOT / "conf/own_checkpoints/parameters.yml").read_text())["analyses"]["landscape"]
    landscape = {"pairs": [["a", "b"]], "alphas": {"points": 3}, "extrapolation": None, "basin": None}
    landscape |= {"criticality": None, "connection": shipped["connection"]}
    with own.project.session("own_checkpoints", {"analyses": {"landscape": landscape}}) as session:
        session.run(pipeline_names=["training", "landscape"])
    table = pd.read_csv(own.folder / "data/07_model_output/images/connection.csv")
    loss = table.query("split == 'test' and metric == 'loss'").set_index("way")
    assert set(loss.index) == set(shipped["connection"]["ways"]) - {"modules"}  # they have a table of their own
    assert loss["moved"]["aligned"] > 0.3
    assert loss["barrier"]["straight"] > 1e-3
    assert abs(loss["barrier"]["aligned"]) < 1e-4
    assert (own.folder / "data/08_reporting/images/connection_a_1__b_1.png").is_file()


def test_a_folder_that_is_not_there_says_how_weights_are_compared(tmp_path: Path) -> None:
    """Before anything runs; the key is named."""
    own = Own(tmp_path)
    shutil.rmtree(own.images)
    with pytest.raises(UserError, match=r"images does not exist: .* alone by `--params tasks\.images\.root=null`$"):
        own.run()
    assert not (tmp_path / "data/06_models/images").exists()


def test_the_same_content_written_again_changes_nothing(own: Own) -> None:
    """A copy of the file with another time is the same file."""
    content = (own.folder / "b.pth").read_bytes()
    (own.folder / "b.pth").unlink()
    (own.folder / "b.pth").write_bytes(content)
    own.run("similarity")


@pytest.mark.parametrize("change", ["overwritten", "added", "removed", "renamed class"])
def test_changed_images_are_noticed(own: Own, change: str) -> None:
    """A split of other files is neither read nor kept; weights measured on other images are not either."""
    if change == "overwritten":
        draw_image(own.images / "a/0.png", 99)
    elif change == "added":
        draw_image(own.images / "a/99.png", 99)
    elif change == "removed":
        (own.images / "a/0.png").unlink()
    else:
        (own.images / "b").rename(own.images / "c")
    changed = r"images\.(test|train)_split: its images, labels or settings have changed since they were packed; "
    with pytest.raises(
        UserError, match=changed + "`kedro run --env own_checkpoints --pipelines data_prep` packs them again"
    ):
        own.run("similarity")
    with pytest.raises(UserError, match=changed + r".*--only-missing-outputs would keep them"):
        own.run(only_missing_outputs=True)
    own.run("data_prep")
    with pytest.raises(
        UserError, match=r"images\.a_1\.checkpoints: trained on other images than images\.\w+_split holds"
    ):
        own.run("similarity")
    own.run("training", "similarity")


@pytest.mark.parametrize("name", ["images.npy", "labels.npy", "split.json"])
def test_a_damaged_split_is_named_and_packed_again(own: Own, name: str) -> None:
    """Analyses refuse it in one line with the command; data_prep packs it again to the same bytes."""
    path = own.folder / "data/05_model_input/images/test" / name
    before = path.read_bytes()
    flip(path, -2)
    with pytest.raises(
        UserError,
        match=rf"{name} is damaged \(.*\): make it anew with `kedro run --env own_checkpoints --pipelines data_prep`$",
    ):
        own.run("similarity")
    own.run("data_prep")
    assert path.read_bytes() == before
    own.run("similarity")


def test_a_damaged_checkpoint_is_named_and_repaired(own: Own) -> None:
    """The command that the message names makes the bytes that there were."""
    path = own.folder / "data/06_models/images/b_1/epoch_0001.safetensors"
    before = path.read_bytes()
    flip(path, -2)
    with pytest.raises(
        UserError, match=r"epoch_0001.* is damaged .*: `kedro run .*--nodes images\.training\.b_1` repairs it$"
    ):
        own.run("similarity")
    own.run(node_names=["images.training.b_1"])
    assert path.read_bytes() == before
    own.run("similarity")


@pytest.mark.parametrize("damage", ["cut off", "deleted", "one bit"])
def test_a_damaged_result_counts_as_missing(own: Own, damage: str) -> None:
    """`--only-missing-outputs` makes it again: a table, a figure, weights, a split."""
    data = own.folder / "data"
    own.run("data_prep", "training", "similarity")
    names = ["07_model_output/images/distances.csv", "08_reporting/images/cka.png", "08_reporting/images/cka.pdf"]
    names += ["06_models/images/b_1/epoch_0001.safetensors", "05_model_input/images/test/images.npy"]
    before = {name: (data / name).read_bytes() for name in names if (data / name).exists()}
    assert len(before) >= 4
    for name in before:
        if damage == "deleted":
            (data / name).unlink()
        elif damage == "one bit":
            flip(data / name, -3)
        else:
            (data / name).write_bytes(before[name][:-3])
    own.run("data_prep", "training", "similarity", only_missing_outputs=True)
    assert {name: (data / name).read_bytes() for name in before} == before


def test_a_damaged_table_is_not_reported(own: Own) -> None:
    """`--pipelines report` is one line with the command that makes the table again."""
    own.run()
    path = own.folder / "data/07_model_output/images/distances.csv"
    path.write_text(path.read_text().replace("1", "2"))
    with pytest.raises(
        UserError,
        match=r"distances\.csv is damaged \(.*\): make it anew with `kedro run --env own_checkpoints --pipelines similarity`$",
    ):
        own.run("report")
    own.run("similarity")
    own.run("report")


def test_a_damaged_list_of_what_was_made_is_reported_and_written_again(
    own: Own, caplog: pytest.LogCaptureFixture
) -> None:
    """One line; results then count as of an unknown plan until they are made again."""
    path = own.folder / "data/.made_by.json"
    before = path.read_bytes()
    flip(path, len(before) // 2)
    own.run("similarity")
    assert caplog.text.count(".made_by.json is damaged (its content is not what was written): which plan made") == 1
    own.run("data_prep", "training", "similarity")
    assert path.read_bytes() == before
