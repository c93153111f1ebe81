from __future__ import annotations

import copy
import logging
import math

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transferscope.analysis import criticality as criticality_module
from transferscope.analysis.criticality import criticality, rewind, rewinding
from transferscope.analysis.interpolation import interpolate
from transferscope.analysis.perturbation import standard_noise
from transferscope.models.modules import find_modules
from transferscope.models.parts import split_at_modules
from transferscope.models.zoo import build_model
from transferscope.system.errors import UserError

OPTIONS = {"blocks": [1, 1], "widths": [4, 8]}


def make_net(seed: int) -> nn.Module:
    """A small Fixup network with no tensor left at zero."""
    net = build_model("fixup_resnet_small", 3, seed=seed, **OPTIONS).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return net


@pytest.fixture(scope="module")
def batches() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(5)
    images = torch.randn(10, 3, 16, 16, generator=generator)
    labels = torch.randint(0, 3, (10,), generator=generator)
    return list(zip(images.split(4), labels.split(4), strict=True))


INITIAL, FINAL = make_net(1).state_dict(), make_net(2).state_dict()
MODULES = find_modules(make_net(0))


def run(batches: object, **options: object) -> pd.DataFrame:
    model = make_net(0)
    arguments: dict = {"alphas": [0.0, 0.5, 1.0], "sigmas": [0.0, 0.1], "num_draws": 2, "seed": 3, **options}
    if arguments.get("stages") == "split":
        arguments["stages"] = split_at_modules(model)
    return criticality(model, INITIAL, FINAL, arguments.pop("modules", MODULES), {"train": batches}, **arguments)


def by_hand(
    module: str, alpha: float, sigma: float, draw: int, batches: list[tuple[Tensor, Tensor]]
) -> tuple[float, float]:
    """Error and loss of a network that is put together tensor by tensor and run as a whole."""
    net, state, between = make_net(0), dict(FINAL), interpolate(INITIAL, FINAL, alpha)
    for key in MODULES[module]:
        state[key] = between[key] + sigma * standard_noise(between[key], 3, key, draw)
    net.load_state_dict(state)
    with torch.no_grad():
        logits = net(torch.cat([images for images, _ in batches]))
    labels = torch.cat([labels for _, labels in batches])
    return (logits.argmax(1) != labels).double().mean().item(), F.cross_entropy(logits, labels).item()


@pytest.mark.parametrize("stages", [None, "split"])
def test_every_perturbation_equals_a_network_made_by_hand(batches: list, stages: str | None) -> None:
    """With and without reuse of activations, each row is what the whole perturbed network gives, for every module."""
    table = run(batches, stages=stages)
    assert list(dict.fromkeys(table["module"])) == list(MODULES)
    for row in table.itertuples():
        error, loss = by_hand(row.module, row.position, row.sigma, row.draw, batches)
        assert row.error == pytest.approx(error)
        assert row.loss == pytest.approx(loss, rel=1e-5)


def test_single_layers_reuse_what_lies_in_front_of_their_block(batches: list) -> None:
    """Modules finer than the stages start at the stage that holds their tensors."""
    layers = find_modules(make_net(0), granularity="layers")
    with_stages, without = run(batches, modules=layers, stages="split"), run(batches, modules=layers)
    pd.testing.assert_frame_equal(with_stages, without, rtol=1e-5)


def test_only_the_part_behind_the_module_is_repeated(batches: list) -> None:
    """The stem runs once a batch plus once per perturbation of the stem, never for those of later modules."""
    model, calls = make_net(0), []
    stages = split_at_modules(model)
    model.conv1.register_forward_hook(lambda *_: calls.append(1))
    modules = {name: MODULES[name] for name in ("layer2.0", "fc")}
    criticality(model, INITIAL, FINAL, modules, {"train": batches}, alphas=[0, 1], sigmas=[0.1], stages=stages)
    # Two more for the comparison of the stages with the whole model on the first batch.
    assert len(calls) == len(batches) + 2


def test_results_do_not_depend_on_how_examples_are_batched(batches: list) -> None:
    """Noise belongs to the perturbation, not to the batch."""
    images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    whole, single = run([(images, labels)]), run(list(zip(images.split(1), labels.split(1), strict=True)))
    pd.testing.assert_frame_equal(whole, single, rtol=1e-5)


def test_noise_does_not_depend_on_the_other_modules(batches: list) -> None:
    """A module measured alone gives the rows that it has among all."""
    alone = run(batches, modules={"fc": MODULES["fc"]})
    among = run(batches)
    pd.testing.assert_frame_equal(alone, among[among["module"] == "fc"].reset_index(drop=True))


def test_batches_may_be_made_anew(batches: list) -> None:
    """A function that yields batches is as good as a list of them."""
    pd.testing.assert_frame_equal(run(lambda: iter(batches)), run(batches))


def test_noise_is_standard_normal_and_reproducible() -> None:
    """Mean 0, variance 1 and no correlation between draws, parameters and seeds; the same again for the same ones."""
    like = torch.zeros(200, 100)
    noise = standard_noise(like, 0, "conv1.weight", 0)
    assert torch.equal(noise, standard_noise(like, 0, "conv1.weight", 0))
    assert noise.mean().abs() < 5 / math.sqrt(20_000)
    assert (noise.var() - 1).abs() < 5 * math.sqrt(2 / 20_000)
    assert (noise.pow(4).mean() - 3).abs() < 5 * math.sqrt(96 / 20_000)
    for other in (("conv1.weight", 1, 0), ("conv2.weight", 0, 0), ("conv1.weight", 0, 1)):
        key, draw, seed = other
        correlation = (noise * standard_noise(like, seed, key, draw)).mean()
        assert correlation.abs() < 5 / math.sqrt(20_000)


def test_noise_has_the_asked_size(batches: list) -> None:
    """The weights that the model sees differ from the position's by sigma in standard deviation, in one module."""
    model, seen = make_net(0), []
    final = {key: tensor.clone() for key, tensor in FINAL.items()}

    def watch(module: nn.Module, inputs: object) -> None:
        seen.append({key: tensor.clone() for key, tensor in model.state_dict().items()})

    model.register_forward_pre_hook(watch)
    name = "layer2.0"
    criticality(
        model, INITIAL, final, {name: MODULES[name]}, {"train": batches[:1]}, alphas=[1], sigmas=[0.05], num_draws=1
    )
    moved = {key: seen[0][key] - final[key] for key in final}
    assert all(bool(moved[key].any()) == (key in MODULES[name]) for key in final)
    values = torch.cat([moved[key].flatten() for key in MODULES[name]])
    assert values.std().item() == pytest.approx(0.05, rel=0.15)


def test_the_optimization_path_visits_the_saved_epochs(batches: list) -> None:
    """Positions are epochs; epoch 0 and the last equal the direct path's ends; distances are from the initial value."""
    middle = make_net(7).state_dict()
    table = run(batches, trajectory={9: FINAL, 0: INITIAL, 4: middle}, sigmas=[0.0])
    direct = run(batches, sigmas=[0.0])
    assert set(table["path"]) == {"optimization"}
    assert set(direct["path"]) == {"direct"}
    for name, keys in MODULES.items():
        part = table[table["module"] == name].set_index("position")
        same = direct[direct["module"] == name].set_index("position")
        assert list(part.index) == [0, 4, 9]
        assert part.loc[0, "loss"] == same.loc[0.0, "loss"]
        assert part.loc[9, "loss"] == same.loc[1.0, "loss"]
        expected = sum((middle[key] - INITIAL[key]).double().square().sum() for key in keys) ** 0.5
        assert part.loc[4, "distance"] == pytest.approx(float(expected))


def test_the_distance_is_alpha_times_the_way(batches: list) -> None:
    """On the direct path the distance from the initial value grows linearly, from 0."""
    table = run(batches, sigmas=[0.0])
    for _, part in table.groupby("module"):
        distances = part.set_index("position")["distance"]
        assert distances[0.0] == 0
        assert distances[0.5] == pytest.approx(distances[1.0] / 2, rel=1e-6)


def test_multi_label_errors_count_known_labels_only(batches: list) -> None:
    """Labels of -1 are left out of error and loss, as from binary cross entropy by hand."""
    images = torch.cat([images for images, _ in batches])
    labels = torch.randint(-1, 2, (10, 3), generator=torch.Generator().manual_seed(0)).to(torch.int8)
    table = run([(images, labels)], alphas=[1.0], sigmas=[0.0])
    net = make_net(2)
    with torch.no_grad():
        logits = net(images)
    known = labels >= 0
    expected = F.binary_cross_entropy_with_logits(logits[known], labels[known].float())
    error = ((logits > 0) != (labels > 0))[known].double().mean()
    assert table["loss"].iloc[0] == pytest.approx(expected.item(), rel=1e-5)
    assert table["error"].iloc[0] == pytest.approx(error.item())


def test_the_model_is_left_with_the_final_weights(batches: list) -> None:
    """Nothing of a perturbation remains, bit for bit; the given states are not written to."""
    before = copy.deepcopy(INITIAL), copy.deepcopy(FINAL)
    model = make_net(0)
    criticality(model, INITIAL, FINAL, MODULES, {"train": batches}, alphas=[0.3], sigmas=[0.2])
    assert all(torch.equal(tensor, FINAL[key]) for key, tensor in model.state_dict().items())
    for state, copied in zip((INITIAL, FINAL), before, strict=True):
        assert all(torch.equal(state[key], copied[key]) for key in state)


def test_non_finite_losses_are_kept_and_named(batches: list, caplog: pytest.LogCaptureFixture) -> None:
    """Noise that overflows gives a non-finite loss in the table and the module's name in the log."""
    with caplog.at_level(logging.WARNING):
        table = run(batches, modules={"fc": MODULES["fc"]}, alphas=[1.0], sigmas=[1e38])
    assert not np.isfinite(table["loss"]).any()
    assert "non-finite losses are kept for modules fc" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alphas": []}, "alphas is empty"),
        ({"sigmas": []}, "sigmas"),
        ({"sigmas": [-0.1]}, "none below 0"),
        ({"num_draws": 0}, "at least one draw"),
        ({"trajectory": {}}, "trajectory is empty"),
        ({"modules": {}}, "at least one module"),
        ({"modules": {"layer9": ("layer9.weight",)}}, "module layer9: the checkpoint has no tensor layer9.weight"),
        ({"stages": [("stem", nn.Identity())]}, "stages do not compute"),
    ],
)
def test_bad_choices_are_refused(batches: list, options: dict, message: str) -> None:
    """Each names what is wrong."""
    with pytest.raises(UserError, match=message):
        run(batches, **options)


def test_progress_counts_modules_and_batches(batches: list) -> None:
    """One step per module and batch."""
    steps: list[int] = []
    run(batches, alphas=[1.0], sigmas=[0.0], progress=steps.append)
    assert sum(steps) == len(MODULES) * len(batches)


def test_further_draws_continue_the_stream(batches: list) -> None:
    """Draws 1 and 2 measured apart are those that three draws at once have."""
    whole = run(batches, num_draws=3)
    later = run(batches, num_draws=2, first_draw=1).query("sigma > 0").reset_index(drop=True)
    expected = whole.query("draw > 0").reset_index(drop=True)
    pd.testing.assert_frame_equal(later, expected, check_exact=False, rtol=1e-6)


def test_a_rewound_state_equals_one_made_by_hand() -> None:
    """The module's tensors are the early ones, all others the final ones, and nothing is shared with either."""
    keys = MODULES["layer1.0"]
    state = rewind(FINAL, INITIAL, keys)
    for key, tensor in state.items():
        assert torch.equal(tensor, INITIAL[key] if key in keys else FINAL[key])
        assert tensor.data_ptr() not in (INITIAL[key].data_ptr(), FINAL[key].data_ptr())
    with pytest.raises(UserError, match=r"no tensor nothing\.weight"):
        rewind(FINAL, INITIAL, ["nothing.weight"])


def test_rewinding_measures_each_module_at_each_epoch(batches: list) -> None:
    """The table equals evaluating states rewound one by one; its reference row is the final model."""

    def evaluate(model: nn.Module) -> dict[str, float]:
        with torch.no_grad():
            return {"mean": model(batches[0][0]).mean().item()}

    middle = make_net(7).state_dict()
    model = make_net(0)
    table = rewinding(model, FINAL, {0: INITIAL, 4: middle}, MODULES, evaluate).set_index(["module", "epoch"])["value"]
    net = make_net(0)
    for epoch, state in ((0, INITIAL), (4, middle)):
        for module, keys in MODULES.items():
            net.load_state_dict(rewind(FINAL, state, keys))
            assert table[(module, epoch)] == evaluate(net)["mean"]
    assert table[("none", -1)] == evaluate(make_net(2))["mean"]
    assert all(torch.equal(tensor, FINAL[key]) for key, tensor in model.state_dict().items())


def test_rewinding_an_unknown_module_names_the_near_ones() -> None:
    """The error suggests modules of the model."""
    with pytest.raises(UserError, match=r"no module 'layer1.7'.*layer1.0"):
        rewinding(make_net(0), FINAL, {0: INITIAL}, MODULES, lambda model: {}, only=["layer1.7"])


def test_a_bfloat16_workspace_rounds_once(batches: list) -> None:
    """In a bfloat16 model positions and noise are still summed in float32; losses are near those of float32."""
    model = make_net(0).bfloat16()
    stages = split_at_modules(model)
    rounded = criticality(
        model, INITIAL, FINAL, MODULES, {"train": batches}, alphas=[0.5], sigmas=[0.1], seed=3, stages=stages
    )
    exact = run(batches, alphas=[0.5], sigmas=[0.1])
    np.testing.assert_allclose(rounded["loss"], exact["loss"], rtol=0.05)
    assert (rounded["loss"] != exact["loss"]).all()


def test_a_compiler_may_round_otherwise(batches: list, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stages are checked as they are given: in bfloat16 compiled ones differ by more than wrong ones may."""

    class Rounded(nn.Module):
        def __init__(self, stage: nn.Module) -> None:
            super().__init__()
            self.stage = stage

        def forward(self, hidden: Tensor) -> Tensor:
            return self.stage(hidden) * (1 + 2**-7)

    monkeypatch.setattr(criticality_module, "as_compiled", Rounded)
    model = make_net(0).bfloat16()
    given = {"alphas": [0.5], "sigmas": [0.1], "seed": 3, "stages": split_at_modules(model)}
    plain = criticality(model, INITIAL, FINAL, MODULES, {"train": batches}, **given)
    compiled = criticality(model, INITIAL, FINAL, MODULES, {"train": batches}, compiled=True, **given)
    np.testing.assert_allclose(compiled["loss"], plain["loss"], rtol=0.2)
    assert (compiled["loss"] != plain["loss"]).all()


def test_only_the_cases_asked_for_are_measured(batches: list) -> None:
    """A chosen case has the rows that it has in the whole table."""
    cases = {("fc", 0.5, 0.1), ("layer1.0", 1.0, 0.0)}
    some, everything = run(batches, only=cases), run(batches)
    chosen = [
        case in cases for case in zip(everything["module"], everything["position"], everything["sigma"], strict=True)
    ]
    pd.testing.assert_frame_equal(some, everything[chosen].reset_index(drop=True), check_exact=False, rtol=1e-6)
    with pytest.raises(UserError, match="no case is left"):
        run(batches, only={("fc", 0.7, 0.1)})
