"""Images are counted where they lie, for what a plan costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from transferscope.experiment.plan import make_plan
from transferscope.framework.counted_images import counted_images
from transferscope.system.errors import UserError

NO_ANALYSES = dict.fromkeys(("mistakes", "similarity", "landscape", "spectrum"))


def plan_of(tasks: dict[str, Any]) -> Any:
    return make_plan({"tasks": tasks, "pictures": {"store_size": 8}, "runs": {}, "analyses": NO_ANALYSES})


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Seven images to train on and three to test on, of two classes."""
    for part, numbers in (("train", (4, 3)), ("test", (2, 1))):
        for name, number in zip(("ant", "bee"), numbers, strict=True):
            folder = tmp_path / "photos" / part / name
            folder.mkdir(parents=True)
            for index in range(number):
                Image.new("RGB", (9, 9), (index, 0, 0)).save(folder / f"{index}.png")
    return tmp_path / "photos"


def test_folders_that_are_there_are_counted(photos: Path, tmp_path: Path) -> None:
    """Also where their format does not say it; a folder that is not there and a union are left to the plan."""
    here = {"format": "image_folder", "root": str(photos)}
    away = {"format": "image_folder", "root": str(tmp_path / "away")}
    plan = plan_of({"photos": here, "away": away, "both": {"union": ["photos", "away"]}})
    assert counted_images(plan, {}) == {"photos": (7, 3)}


def test_a_list_counts_and_not_the_limit_of_its_format(photos: Path, tmp_path: Path) -> None:
    """A limit of DomainNet's size would make a small set of photos as costly as DomainNet."""
    for part in ("train", "test"):
        files = sorted((photos / part).glob("*/*.png"))
        lines = [f"{file.relative_to(tmp_path)} {int(file.parent.name == 'bee')}" for file in files]
        (tmp_path / f"photos_{part}.txt").write_text("\n".join(lines) + "\n")
    task = {"format": "domainnet", "root": str(tmp_path), "limit": 5}
    assert counted_images(plan_of({"photos": task}), {}) == {"photos": (5, 3)}


def test_a_folder_that_cannot_be_read_is_named(photos: Path) -> None:
    (photos / "train" / "ant").rename(photos / "train" / "cow")
    with pytest.raises(UserError, match=r"class .ant. is not in train"):
        counted_images(plan_of({"photos": {"format": "image_folder", "root": str(photos)}}), {})


def test_numbers_that_are_given_are_not_counted(photos: Path) -> None:
    """A folder that is filled later may be incomplete now."""
    (photos / "train" / "ant").rename(photos / "train" / "cow")
    plan = plan_of({"photos": {"format": "image_folder", "root": str(photos)}})
    assert counted_images(plan, {"photos": (30, 20)}) == {"photos": (30, 20)}
