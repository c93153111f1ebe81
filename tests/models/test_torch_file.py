"""Files of torch.save, as training scripts leave them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from transferscope.models.checkpoint import load_checkpoint
from transferscope.system.errors import UserError

WEIGHTS = {"fc.weight": torch.arange(6.0).view(2, 3), "fc.bias": torch.zeros(2)}
PREFIXED = {f"module.{key}": value for key, value in WEIGHTS.items()}
COMPILED = {f"module._orig_mod.{key}": value for key, value in WEIGHTS.items()}
LIGHTNING = {f"model.{key}": value for key, value in WEIGHTS.items()}


@pytest.mark.parametrize("suffix", [".pth", ".pth.tar", ".pt"])
@pytest.mark.parametrize(
    "content",
    [
        WEIGHTS,
        PREFIXED,
        COMPILED,
        {"state_dict": LIGHTNING, "callbacks": {}, "hyper_parameters": {"lr": 0.1}},
        {"model": WEIGHTS, "optimizer": {"state": {}, "param_groups": []}, "epoch": 3},
        {"epoch": 3, "arch": "resnet50", "state_dict": PREFIXED, "best_acc1": torch.tensor(76.1)},
        {"model": {"state_dict": WEIGHTS}, "args": argparse.Namespace(lr=0.1)},
        {"net": WEIGHTS, "best_auc": np.float64(0.78), "n": np.int64(3)},
    ],
)
def test_weights_are_found_under_the_usual_keys_and_prefixes(tmp_path: Path, suffix: str, content: Any) -> None:
    """DataParallel, torch.compile, Lightning; nested once or twice; beside command line and metrics."""
    path = tmp_path / f"checkpoint{suffix}"
    torch.save(content, path)
    state_dict = load_checkpoint(path).state_dict
    assert list(state_dict) == list(WEIGHTS)
    assert all(torch.equal(state_dict[key], WEIGHTS[key]) for key in WEIGHTS)


def test_files_of_old_torch_are_read(tmp_path: Path) -> None:
    """The format before archives."""
    torch.save(WEIGHTS, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert torch.equal(load_checkpoint(tmp_path / "old.pth").state_dict["fc.weight"], WEIGHTS["fc.weight"])


def test_epoch_is_taken_and_arch_is_a_hint(tmp_path: Path) -> None:
    """`resnet50` may be anybody's, so it does not name the architecture."""
    torch.save({"state_dict": WEIGHTS, "epoch": 90, "arch": "resnet50"}, tmp_path / "a.pth")
    metadata = load_checkpoint(tmp_path / "a.pth").metadata
    assert (metadata.epoch, metadata.architecture, metadata.extra) == (90, None, {"arch": "resnet50"})


def test_a_prefix_that_only_some_keys_have_is_part_of_their_names(tmp_path: Path) -> None:
    """A submodule may be called `module`."""
    weights = {"module.weight": torch.zeros(1), "fc.weight": torch.zeros(1)}
    torch.save(weights, tmp_path / "a.pth")
    assert list(load_checkpoint(tmp_path / "a.pth").state_dict) == list(weights)


class Harmful:
    """Would write a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Path, str]]:
        return Path.write_text, (self.path, "owned")


@pytest.mark.parametrize("archive", [True, False])
def test_no_code_is_run(tmp_path: Path, archive: bool) -> None:
    """The error names the file and the remedy; the code in the file was not called."""
    content = {"state_dict": WEIGHTS, "x": Harmful(tmp_path / "trace")}
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=archive)
    with pytest.raises(UserError, match=r"a\.pth holds objects that need code .*save only model\.state_dict\(\)"):
        load_checkpoint(tmp_path / "a.pth")
    assert not (tmp_path / "trace").exists()


def test_a_whole_pickled_model_is_refused(tmp_path: Path) -> None:
    """torch.save(model) needs the class to be trusted."""
    torch.save(nn.Linear(2, 2), tmp_path / "a.pth")
    with pytest.raises(UserError, match="save only model"):
        load_checkpoint(tmp_path / "a.pth")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"epoch": 3, "optimizer": {}}, r"holds no state_dict \(its keys are epoch, optimizer\)"),
        ([torch.zeros(1)], r"holds no state_dict \(it is a list\)"),
        ({}, r"holds no state_dict \(it is empty\)"),
    ],
)
def test_a_file_without_weights_says_what_it_holds(tmp_path: Path, content: Any, message: str) -> None:
    """Keys or type."""
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(UserError, match=message):
        load_checkpoint(tmp_path / "a.pth")


@pytest.mark.parametrize("archive", [True, False])
@pytest.mark.parametrize("part", [0.0, 0.01, 0.5, 0.95])
def test_a_cut_off_file_is_named(tmp_path: Path, part: float, archive: bool) -> None:
    """In either format, wherever it ends."""
    path = tmp_path / "cut.pth"
    torch.save({"state_dict": {"a": torch.rand(1000)}}, path, _use_new_zipfile_serialization=archive)
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    with pytest.raises(UserError, match=r"cut\.pth"):
        load_checkpoint(path)


def test_a_text_file_is_named(tmp_path: Path) -> None:
    """Such as the page of a download that failed."""
    (tmp_path / "a.pth").write_text("<html>404</html>")
    with pytest.raises(UserError, match=r"a\.pth is cut off or no file of torch\.save"):
        load_checkpoint(tmp_path / "a.pth")
