"""Which weights of a file are taken (`saved_weights`), and what is removed from their names (`tensor_names`)."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel

from transferscope.models.checkpoint import Checkpoint, load_checkpoint
from transferscope.models.state_dicts import ComputedState, without
from transferscope.system.errors import UserError

WEIGHTS = {"fc.weight": torch.arange(6.0).view(2, 3), "fc.bias": torch.zeros(2)}
OTHER = {key: value + 1 for key, value in WEIGHTS.items()}


def under(prefix: str, weights: dict[str, torch.Tensor] = WEIGHTS) -> dict[str, torch.Tensor]:
    return {prefix + key: value for key, value in weights.items()}


def loaded(path: Path, content: Any, **options: Any) -> Checkpoint:
    torch.save(content, path / "a.pth")
    return load_checkpoint(path / "a.pth", **options)


def notes(checkpoint: Checkpoint) -> str:
    return "; ".join(checkpoint.metadata.extra.get("notes", []))


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize(
    "prefix",
    [
        "module.",
        "_orig_mod.",
        "model.",
        "net.",
        "network.",
        "backbone.",
        "encoder.",
        "student.",
        "ema_model.",
        "module._orig_mod.",
        "_orig_mod.module.",
        "model.net.module.",
        "module.student.backbone.",
        "_forward_module.model.",
    ],
)
def test_wrappers_are_removed_in_any_format(tmp_path: Path, prefix: str, suffix: str) -> None:
    """Single and nested, and a sentence says so."""
    path = tmp_path / f"a{suffix}"
    save_file(under(prefix), path) if suffix == ".safetensors" else torch.save(under(prefix), path)
    checkpoint = load_checkpoint(path)
    assert list(checkpoint.state_dict) == sorted(WEIGHTS) if suffix == ".safetensors" else list(WEIGHTS)
    assert all(torch.equal(checkpoint.state_dict[key], value) for key, value in WEIGHTS.items())
    assert "removed" in notes(checkpoint)


def test_what_compilers_insert_is_removed_anywhere(tmp_path: Path) -> None:
    """torch.compile of a part of the network, FSDP, recomputed activations."""
    content = {
        "a._orig_mod.weight": torch.zeros(1),
        "b._fsdp_wrapped_module.c._checkpoint_wrapped_module.bias": torch.ones(1),
    }
    assert list(loaded(tmp_path, content).state_dict) == ["a.weight", "b.c.bias"]


def test_names_without_wrappers_stay(tmp_path: Path) -> None:
    """A common first part that is no wrapper's belongs to the network; a wrapper's name alone is a name."""
    for names in (["layer.weight", "layer.bias"], ["module", "fc.weight"], ["module.weight", "fc.weight"]):
        checkpoint = loaded(tmp_path, {name: torch.zeros(1) for name in names})
        assert list(checkpoint.state_dict) == names
        assert notes(checkpoint) == ""


def test_averages_of_torch_load(tmp_path: Path) -> None:
    """`AveragedModel` counts its updates beside the weights."""
    model = nn.Linear(2, 2)
    checkpoint = loaded(tmp_path, AveragedModel(model).state_dict())
    assert list(checkpoint.state_dict) == ["weight", "bias"]
    assert "left out counters, which are no weights: n_averaged" in notes(checkpoint)


def test_counters_of_profilers_are_left_out(tmp_path: Path) -> None:
    """As thop leaves them in every module."""
    counted = WEIGHTS | {"total_ops": torch.zeros(1), "fc.total_params": torch.zeros(1)}
    checkpoint = loaded(tmp_path, counted)
    assert list(checkpoint.state_dict) == list(WEIGHTS)
    assert "total_ops, fc.total_params" in notes(checkpoint)


@pytest.mark.parametrize(
    ("plain", "averaged"),
    [
        ("model", "model_ema"),
        ("state_dict", "state_dict_ema"),
        ("model", "ema"),
        ("net", "ema_model"),
        ("student", "teacher"),
        ("model_state", "model_averaged"),
        ("generator", "generator_ema"),
    ],
)
@pytest.mark.parametrize("averages_first", [True, False])
def test_of_two_the_plain_weights_are_taken_and_an_option_takes_the_others(
    tmp_path: Path, plain: str, averaged: str, averages_first: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever order they have in the file; the sentence names both keys, in the log too."""
    both = {averaged: OTHER, plain: WEIGHTS} if averages_first else {plain: WEIGHTS, averaged: OTHER}
    with caplog.at_level(logging.INFO, logger="transferscope"):
        checkpoint = loaded(tmp_path, both | {"epoch": 3})
    assert torch.equal(checkpoint.state_dict["fc.bias"], WEIGHTS["fc.bias"])
    assert notes(checkpoint) == f"took the weights under {plain!r}; the option weights takes others: {averaged}"
    assert notes(checkpoint) in caplog.text
    other = loaded(tmp_path, both, weights=averaged)
    assert torch.equal(other.state_dict["fc.bias"], OTHER["fc.bias"])


def test_nested_weights_are_named_by_the_keys_that_lead_to_them(tmp_path: Path) -> None:
    """The first key is enough, unless there are several below it."""
    content = {"model": {"state_dict": WEIGHTS}, "ema": {"decay": 0.9, "module": OTHER}}
    for key in ("ema", "ema.module"):
        assert torch.equal(loaded(tmp_path, content, weights=key).state_dict["fc.bias"], OTHER["fc.bias"])


def test_of_several_without_a_usual_key_one_must_be_named(tmp_path: Path) -> None:
    """Nothing says which of two networks is meant."""
    content = {"generator": WEIGHTS, "discriminator": OTHER}
    with pytest.raises(UserError, match="holds weights under generator, discriminator: choose by the option weights"):
        loaded(tmp_path, content)
    assert torch.equal(loaded(tmp_path, content, weights="discriminator").state_dict["fc.bias"], OTHER["fc.bias"])


def test_a_key_that_is_not_there_is_answered_with_those_that_are(tmp_path: Path) -> None:
    """With the nearest, and for a file of a single set."""
    with pytest.raises(UserError, match=r"has no weights under 'model_em': near matches are model_ema, model; it has"):
        loaded(tmp_path, {"model": WEIGHTS, "model_ema": OTHER}, weights="model_em")
    with pytest.raises(UserError, match="has no weights under 'ema'"):
        loaded(tmp_path, WEIGHTS, weights="ema")
    save_file(WEIGHTS, tmp_path / "a.safetensors")
    with pytest.raises(UserError, match="leave out the option weights"):
        load_checkpoint(tmp_path / "a.safetensors", weights="ema")


def test_weights_among_other_entries_are_taken(tmp_path: Path) -> None:
    """As in {**state_dict, "optimizer": ...}; what is left out is named, and other weights than averages are a doubt."""
    optimizer = torch.optim.Adam([torch.zeros(2, requires_grad=True)]).state_dict()
    checkpoint = loaded(tmp_path, WEIGHTS | {"optimizer": optimizer, "epoch": 3})
    assert list(checkpoint.state_dict) == list(WEIGHTS)
    assert torch.equal(checkpoint.state_dict["fc.weight"], WEIGHTS["fc.weight"])
    assert notes(checkpoint) == "left out values that are no tensors: optimizer, epoch"
    averaged = loaded(tmp_path, WEIGHTS | {"ema": OTHER})
    assert torch.equal(averaged.state_dict["fc.bias"], WEIGHTS["fc.bias"])
    beside = loaded(tmp_path, {"input.mean": torch.zeros(3), "model": WEIGHTS})
    assert list(beside.state_dict) == list(WEIGHTS)


def test_the_state_of_an_optimizer_is_no_network(tmp_path: Path) -> None:
    """Its moments are named by numbers; the message says that it is an optimizer's."""
    weight = torch.zeros(2, 3, requires_grad=True)
    optimizer = torch.optim.Adam([weight])
    weight.sum().backward()
    optimizer.step()
    with pytest.raises(UserError, match="holds the state of an optimizer, and no weights: give the file of"):
        loaded(tmp_path, optimizer.state_dict())


@pytest.mark.parametrize("values", [True, False])
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_tensors_without_values_are_refused(tmp_path: Path, suffix: str, values: bool) -> None:
    """ZeRO-3 leaves empty tensors where each device has a share; the message names the file and the fix."""
    weights, path = WEIGHTS | {"fc.weight": torch.zeros(0)}, tmp_path / f"a.{suffix}"
    save_file(weights, path) if suffix == "safetensors" else torch.save(weights, path)
    with pytest.raises(UserError, match=rf"a.{suffix}: 'fc.weight' is empty, shape \(0,\), as DeepSpeed ZeRO-3"):
        load_checkpoint(path, values=values)


def test_what_is_no_network_is_not_taken_for_one(tmp_path: Path) -> None:
    """The states of optimizers, losses and buffers of statistics do not compete with the weights."""
    content = {
        "stats": {"mean": torch.zeros(3), "std": torch.ones(3)},
        "optimizer": {"state": {0: {"step": torch.zeros(1)}}},
        "criterion": {"proxies.weight": torch.zeros(3)},
        "my_network": WEIGHTS,
    }
    checkpoint = loaded(tmp_path, content)
    assert (list(checkpoint.state_dict), notes(checkpoint)) == (list(WEIGHTS), "")


def test_a_tuple_with_weights_is_read(tmp_path: Path) -> None:
    """As `torch.save((model.state_dict(), epoch), ...)` writes it."""
    assert list(loaded(tmp_path, (WEIGHTS, 3)).state_dict) == list(WEIGHTS)


def test_values_between_the_weights_are_left_out_with_a_sentence(tmp_path: Path) -> None:
    """Such as extra states of modules and numbers that a script adds."""
    checkpoint = loaded(tmp_path, WEIGHTS | {"version": 3, "fc._extra_state": None, "a.b": torch.zeros(1)})
    assert list(checkpoint.state_dict) == [*WEIGHTS, "a.b"]
    assert "left out values that are no tensors: version, fc._extra_state" in notes(checkpoint)


@pytest.mark.parametrize("prefix", ["net", "net.", "model.net"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_an_option_takes_what_lies_below_a_prefix(tmp_path: Path, prefix: str, suffix: str) -> None:
    """The loss's own parameters and other networks are left out; wrappers before all names need not be named."""
    content = under("model.net.") | {"model.loss.proxies": torch.zeros(3)} | under("model.other.", OTHER)
    path = tmp_path / f"a{suffix}"
    save_file(content, path) if suffix == ".safetensors" else torch.save({"state_dict": content}, path)
    checkpoint = load_checkpoint(path, prefix=prefix)
    assert checkpoint.state_dict.keys() == WEIGHTS.keys()
    assert all(torch.equal(checkpoint.state_dict[key], value) for key, value in WEIGHTS.items())
    assert "left out 3 tensors without the prefix" in notes(checkpoint)


def test_a_prefix_that_no_name_has_is_refused(tmp_path: Path) -> None:
    """With the first parts that there are."""
    content = under("net.") | {"loss.proxies": torch.zeros(3)}
    with pytest.raises(UserError, match=r"has no tensor whose name begins with 'nt\.'; names begin with net\., loss\."):
        loaded(tmp_path, content, prefix="nt")


def test_our_own_files_hold_one_set(tmp_path: Path) -> None:
    """Options would have no meaning for them."""
    from transferscope.models.checkpoint import save_checkpoint

    save_checkpoint(Checkpoint(dict(WEIGHTS)), tmp_path / "a.safetensors")
    with pytest.raises(UserError, match="holds one set of weights: leave out the options weights and prefix"):
        load_checkpoint(tmp_path / "a.safetensors", prefix="fc")


def test_strange_names_are_shown_without_escape_codes(tmp_path: Path) -> None:
    """A name may hold what a terminal would obey."""
    with pytest.raises(UserError) as caught:
        loaded(tmp_path, {"\x1b[2J": 3})
    assert str(caught.value).isprintable()


def test_a_state_without_some_tensors_computes_none_for_that() -> None:
    """Names are known without a tensor, in the order of the state; one that is left out is no key."""
    asked: list[str] = []
    state = ComputedState(WEIGHTS, lambda key: (asked.append(key), WEIGHTS[key])[1])
    rest = without(state, ["fc.bias", "other"])
    assert list(rest) == ["fc.weight"]
    assert "fc.bias" not in rest
    assert "fc.weight" in rest
    with pytest.raises(KeyError):
        rest["fc.bias"]
    assert asked == []
    assert rest["fc.weight"] is WEIGHTS["fc.weight"]
    assert asked == ["fc.weight"]
