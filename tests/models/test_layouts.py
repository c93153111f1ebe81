"""Which axis of a layer's output holds examples, and which channels."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from transferscope.analysis.cka_models import cka_between
from transferscope.analysis.features import FeatureExtractor
from transferscope.models.layers import block_layers
from transferscope.models.layouts import Layout, find_layouts, first_tensor, try_layouts
from transferscope.models.zoo import build_model
from transferscope.system.errors import UserError

IMAGES = torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))


class Shaped(nn.Module):
    """A convolution whose output is brought into some other shape."""

    def __init__(self, shape: str, channels: int = 16) -> None:
        super().__init__()
        self.shape = shape
        self.body = nn.Conv2d(3, channels, 1)
        self.norm = nn.LayerNorm(channels)

    def forward(self, images: Tensor) -> Tensor | list[Tensor]:
        x = self.norm(self.body(images).permute(0, 2, 3, 1)).relu()
        batch, height, width, channels = x.shape
        return {
            "channels last": lambda: x,
            "channels first": lambda: x.permute(0, 3, 1, 2),
            "tokens": lambda: x.flatten(1, 2),
            "tokens last": lambda: x.flatten(1, 2).transpose(1, 2),
            "tokens first": lambda: x.flatten(1, 2).transpose(0, 1),
            "heads": lambda: x.reshape(batch, height * width, channels),
            "windows": lambda: (
                x.reshape(batch, 2, height // 2, 2, width // 2, channels)
                .permute(0, 1, 3, 2, 4, 5)
                .reshape(batch * 4, -1, channels)
            ),
            "rows": lambda: x.reshape(-1, channels),
            "list": lambda: [x, x.mean((1, 2))],
        }[self.shape]()


class Network(nn.Module):
    def __init__(self, shape: str, channels: int = 16) -> None:
        super().__init__()
        self.layer = Shaped(shape, channels)

    def forward(self, images: Tensor) -> Tensor:
        return first_tensor(self.layer(images))


@pytest.mark.parametrize(
    "shape",
    ["channels last", "channels first", "tokens", "tokens last", "tokens first", "heads", "windows", "rows", "list"],
)
@pytest.mark.parametrize("channels", [16, 5, 256])
def test_pooling_does_not_depend_on_how_an_output_is_laid_out(shape: str, channels: int) -> None:
    """The same features in ten shapes, also where an axis of pixels is as long as that of the channels."""
    model = Network(shape, channels)
    with torch.no_grad():
        expected = model.layer.norm(model.layer.body(IMAGES).permute(0, 2, 3, 1)).relu().mean((1, 2))
    pooled = FeatureExtractor(model, ["layer"])(IMAGES)["layer"]
    torch.testing.assert_close(pooled, expected, rtol=1e-4, atol=1e-5)
    values = FeatureExtractor(model, ["layer"], features="flattened")(IMAGES)["layer"]
    assert values.shape == (5, channels * 256)
    torch.testing.assert_close(values.mean(1), expected.mean(1), rtol=1e-4, atol=1e-5)


def test_trying_leaves_weights_statistics_and_modes_alone() -> None:
    """To the bit, also of a network whose weights are not finite, and no hook stays."""
    model = build_model("resnet18", 3, seed=0)
    with torch.no_grad():
        model.layer2[0].conv1.weight.fill_(float("nan"))
        model.bn1.running_mean.fill_(3.0)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    layouts = find_layouts(model, ["layer1", "layer4"], (3, 32, 32))
    assert {layout.channels for layout in layouts.values()} == {1}
    after = model.state_dict()
    assert all(torch.equal(after[key], value) or value.isnan().any() for key, value in before.items())
    assert after["layer2.0.conv1.weight"].isnan().all()
    assert model.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_layers_without_effect_have_a_layout() -> None:
    """A dead ReLU, a scale of 0 and zero weights hide nothing: the network is tried with other weights."""
    model = build_model("fixup_resnet_small", 3, seed=0, widths=[4, 8, 8])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    layouts = find_layouts(model, block_layers(model).values(), (3, 16, 16))
    assert {layout.channels for layout in layouts.values()} == {1}


def test_what_depends_on_no_image_or_mixes_them_is_refused_by_name() -> None:
    """A position embedding and a mean over the batch have no examples; other layers of the model still have a layout."""

    class Mixing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.position, self.good, self.mean = nn.Linear(4, 4), nn.Linear(4, 4), nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            y = self.good(x + self.position(torch.ones(1, 4)))
            return self.mean(y - y.mean(0))

    model = Mixing()
    with pytest.raises(UserError, match=r"layer position of Mixing puts out .* no axis holds the examples"):
        FeatureExtractor(model, ["position"])(torch.randn(6, 4))
    layouts, refused = try_layouts(model, ["position", "good", "mean"], (4,))
    assert layouts == {"good": Layout(2, 0, 1, 1)}
    assert list(refused) == ["position", "mean"]


def test_an_axis_of_channels_that_cannot_be_told_is_refused_by_name() -> None:
    """Behind a random rotation of all values no axis is one of channels: pooled is refused, flattened is not."""

    class Rotated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)
            self.register_buffer("rotation", torch.linalg.qr(torch.randn(64, 64)).Q)

        def forward(self, x: Tensor) -> Tensor:
            return (self.conv(x).flatten(1) @ self.rotation).reshape(-1, 4, 4, 4)

    model = nn.Sequential(Rotated())
    with pytest.raises(UserError, match=r"layer 0 of Sequential.*no axis behaves like channels.*flattened"):
        FeatureExtractor(model, ["0"])(IMAGES[..., :4, :4])
    assert FeatureExtractor(model, ["0"], features="flattened")(IMAGES[..., :4, :4])["0"].shape == (5, 64)


def test_the_stages_of_swin_are_pooled_over_pixels() -> None:
    """CKA of two Swin transformers equals that of features which are pooled by hand over height and width."""
    models = [build_model("swin_t", 3, seed=seed).eval() for seed in (1, 2)]
    colours = torch.rand(24, 3, 1, 1, generator=torch.Generator().manual_seed(3))
    images = colours + 0.1 * torch.randn(24, 3, 32, 32, generator=torch.Generator().manual_seed(4))
    layers = ["features.1", "features.3", "features.5", "features.7"]
    extractors = {str(index): FeatureExtractor(model, layers) for index, model in enumerate(models)}
    table = cka_between(extractors, [images]).set_index("layer")["cka"]
    assert {layout.channels for layout in extractors["0"].layouts.values()} == {3}
    assert (table > 0.9).all()
    with torch.no_grad():
        stem = models[0].features[1](models[0].features[0](images))
    torch.testing.assert_close(extractors["0"](images)["features.1"], stem.mean((1, 2)), rtol=1e-4, atol=1e-5)


def test_outputs_that_do_not_fit_are_refused() -> None:
    """A layout is that of one architecture; an output without a tensor has none."""
    with pytest.raises(UserError, match=r"an output of shape \(7, 2\) for 3 images"):
        Layout(2, 0, 2, 1).pooled(torch.zeros(7, 2), 3)
    with pytest.raises(UserError, match="holds no tensor"):
        first_tensor({"logits": None})
