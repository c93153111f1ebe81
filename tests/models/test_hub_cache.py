"""Names of the hub, by files that lie in the local cache."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from transferscope.models import hub_cache
from transferscope.models.checkpoint import load_checkpoint
from transferscope.models.hub_cache import cached_architecture, is_hub_name
from transferscope.models.zoo import build_model, build_skeleton
from transferscope.system.errors import UserError


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with one repository, as the hub's library lays it out."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    snapshot = tmp_path / "models--somebody--flowers" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    refs = tmp_path / "models--somebody--flowers" / "refs"
    refs.mkdir()
    (refs / "main").write_text("0" * 40)
    content = {"architecture": "resnet10t", "num_classes": 3, "model_args": {"in_chans": 1}}
    (snapshot / "config.json").write_text(json.dumps(content))
    weights = build_model("resnet10t", 3, seed=4, in_chans=1).state_dict()
    save_file({key: value.contiguous() for key, value in weights.items()}, snapshot / "model.safetensors")
    return snapshot


def test_a_cached_repository_is_an_architecture_and_a_checkpoint(cache: Path) -> None:
    """The network of its config.json, and the weights beside it, without a network connection."""
    name = "hf_hub:somebody/flowers"
    assert cached_architecture(name) == ("resnet10t", {"in_chans": 1})
    skeleton = build_skeleton(name, 3).state_dict()
    loaded = load_checkpoint(name).state_dict
    assert {key: value.shape for key, value in loaded.items()} == {key: value.shape for key, value in skeleton.items()}
    assert torch.equal(loaded["conv1.0.weight"], build_model("resnet10t", 3, seed=4, in_chans=1).conv1[0].weight)


def test_timms_own_names_need_no_cache(cache: Path) -> None:
    """The architecture stands in the name; only weights must be there."""
    names = [build_skeleton(f"{prefix}resnet10t.c3_in1k", 3) for prefix in ("hf_hub:timm/", "hf-hub:timm/", "timm/")]
    assert len({tuple(network.state_dict()) for network in names}) == 1
    with pytest.raises(UserError, match=r"not in the local cache: fetch it by `hf download timm/resnet10t.c3_in1k`"):
        load_checkpoint("hf_hub:timm/resnet10t.c3_in1k")


def test_a_config_without_architecture_is_one_line(cache: Path) -> None:
    """It is named with the fix."""
    (cache / "config.json").write_text("[]")
    with pytest.raises(UserError, match=r"config.json names no architecture of timm: name one as model.name"):
        build_model("hf_hub:somebody/flowers", 3)


def test_without_the_package_the_way_to_install_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache is read by the hub's own library, which comes with timm."""
    monkeypatch.setattr(hub_cache.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"need the package timm"):
        load_checkpoint("hf_hub:somebody/flowers")


def test_paths_and_references_are_no_names_of_the_hub() -> None:
    """A prefix says so."""
    assert is_hub_name("hf-hub:timm/resnet18")
    assert not any(map(is_hub_name, ("a.pth", "nets.py:build", "timm/resnet18", "C:/a.pth")))
