"""Models and images as a notebook has them, and one line for what cannot be compared."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import transferscope
from compared_networks import NUM_TEST, SIDE, OtherNetwork, Trained, save
from transferscope.answers.answer import AnswerCard
from transferscope.answers.given_images import take_images
from transferscope.answers.given_models import take
from transferscope.answers.given_networks import name_of
from transferscope.models.zoo import build_model
from transferscope.system.errors import UserError

QUICK = {"landscape": None, "similarity": None, "merging": None, "mistakes": {"bootstrap": 10}}


class PatchNetwork(nn.Module):
    """A network with a position for each patch, so that it takes images of one size."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.image_size = side
        self.patches = nn.Conv2d(3, 6, 8, 8)
        self.pos_embed = nn.Parameter(torch.zeros(1, 6, side // 8, side // 8))
        self.head = nn.Linear(6, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head((self.patches(images) + self.pos_embed).mean(dim=(2, 3)))


def same_function(*models: Any, **options: Any) -> tuple[str, float]:
    answer = transferscope.compare(*models, **{"analyses": QUICK} | options).card["same_function"]
    return answer.verdict, answer.value


def test_paths_state_dicts_and_networks_are_one_thing(trained: Trained, tmp_path: Path) -> None:
    """The same two models give the same answer, however they are given; the network given is left as it was."""
    paths = [save(trained, name, tmp_path) for name in ("first", "unrelated")]
    networks = [trained.models[name] for name in ("first", "unrelated")]
    states = [trained.state(name) for name in ("first", "unrelated")]
    before = trained.state("first")
    answers = {
        same_function(*networks, images=trained.images),
        same_function(*states, model=networks[0], images=trained.images),
        same_function(*map(str, paths), model=networks[0], images=trained.images),
        same_function(paths[0], states[1], model=networks[1], images=trained.images),
    }
    assert len(answers) == 1
    assert all(torch.equal(before[key], tensor) for key, tensor in trained.state("first").items())


def test_architectures_of_the_tables_are_recognised(tmp_path: Path) -> None:
    """Files of a known architecture need no name."""
    paths = []
    for seed in (0, 1):
        paths.append(tmp_path / f"{seed}.pth")
        torch.save(build_model("squeezenet1_1", 3, seed=seed).state_dict(), paths[-1])
    card = transferscope.compare(*paths, analyses=QUICK).card
    assert card.models[0]["architecture"] == "squeezenet1_1"
    assert card["same_function"].verdict == "no"


def test_loaders_data_sets_and_tensors_show_the_same_images(trained: Trained) -> None:
    """Halves of a pair of tensors, of a data set and of its loader are the same images, to the last bit that counts."""
    pair = trained.images["test"]
    data = TensorDataset(*pair)
    given = [pair, data, DataLoader(data, batch_size=7, shuffle=True)]
    assert (
        len({same_function(*(trained.models[name] for name in ("first", "other")), images=one) for one in given}) == 1
    )


def test_networks_see_what_was_given(trained: Trained, tmp_path: Path) -> None:
    """Images that went through a split are what the network takes, to rounding."""
    from transferscope.measure.bench import batches

    splits = take_images(trained.images, "images", tmp_path, 4, 2 * NUM_TEST)
    inputs = torch.cat([images for images, _ in batches(splits["test"])])
    assert torch.allclose(inputs, trained.images["test"][0], atol=1e-6)
    few = batches(splits["test"].subset(np.array([3, 1])))
    assert torch.allclose(next(iter(few))[0], trained.images["test"][0][[3, 1]], atol=1e-6)


def test_equal_images_with_different_labels_are_warned_of(
    trained: Trained, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One image under two labels, as in a folder that a run packs; both halves of a set are looked at."""
    images, labels = (tensor[:8].clone() for tensor in trained.images["test"])
    take_images((images, labels), "images", tmp_path / "right", 4, 16)
    assert caplog.messages == []
    images[5], labels[5] = images[2], (labels[2] + 1) % 4
    take_images((images, labels), "images", tmp_path / "wrong", 4, 16)
    assert (
        "images: images that are equal pixel for pixel as stored have different labels (1 in 2 examples"
        in (caplog.messages[0])
    )


def test_a_folder_of_images(trained: Trained, tmp_path: Path) -> None:
    """Class folders are halved, and as many images are used as are asked for."""
    for index in range(48):
        folder = tmp_path / "photos" / f"class_{index % 4}"
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(index).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    models = [trained.models[name] for name in ("first", "other")]
    comparison = transferscope.compare(*models, images=tmp_path / "photos", max_images=20, analyses=QUICK)
    assert comparison.tables["replacement"]["num_examples"].tolist() == [10]


def test_several_models(trained: Trained) -> None:
    """Of three models every pair is compared, the one that is a copy is found, and named pairs alone where asked."""
    models = [trained.models[name] for name in ("first", "permuted", "other")]
    comparison = transferscope.compare(*models, images=trained.images, names=["one", "two", "three"], analyses=QUICK)
    answer = comparison.card["same_function"]
    assert (answer.verdict, answer.models) == ("yes", ("one", "two"))
    assert "1 pair (one & two) computes the same" in answer.answer
    for card in (comparison.card, AnswerCard.from_json(comparison.card.to_json())):
        assert [model["label"] for model in card.models] == ["one", "two", "three"]
    chosen = transferscope.compare(*models, pairs=[("A", "C")], analyses=QUICK)
    assert len(chosen.tables["identity"]) == 1
    assert chosen.card["same_function"].verdict == "no"


def test_one_network_gives_one_name() -> None:
    """Networks of one class and layout have the same name, others have not."""
    assert name_of(OtherNetwork()) == name_of(OtherNetwork())
    changed = OtherNetwork()
    changed[1] = nn.GELU()
    assert name_of(changed) != name_of(OtherNetwork())


WRAPPERS = {
    "data parallel": nn.DataParallel,
    "averaged": torch.optim.swa_utils.AveragedModel,
    "float64": lambda network: network.double(),
    "half": lambda network: network.half(),
    "compiled": lambda network: torch.compile(nn.DataParallel(network)),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_what_runs_a_network_is_taken_off(wrapper: str) -> None:
    """Also another precision: it is the same architecture, which computes in float32."""
    plain = OtherNetwork()
    taken = take(WRAPPERS[wrapper](copy.deepcopy(plain)), "A", "images", "a_1", None).checkpoint
    assert taken.metadata.architecture == name_of(plain)
    assert taken.state_dict.keys() == plain.state_dict().keys()
    network = taken.build()
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    images = torch.randn(2, 3, SIDE, SIDE)
    torch.testing.assert_close(network(images), plain.eval()(images), atol=1e-2, rtol=1e-2)


class Returns(nn.Module):
    """A network that puts out something else than logits."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.fc, self.form = nn.Linear(3, 4), form

    def extra_repr(self) -> str:
        return self.form

    def forward(self, images: torch.Tensor) -> Any:
        logits = self.fc(images.mean((2, 3)))
        forms = {
            "dict": {"logits": logits},
            "random": nn.functional.dropout(logits),
            "of the batch": logits - logits.mean(0),
            "probabilities": logits.softmax(1),
            "probabilities of findings": logits.sigmoid(),
        }
        return forms.get(self.form, (logits, images))


class PerChannel(nn.Module):
    """A network of colour images whose convolution sees each channel by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 4, 3), nn.Linear(12, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(self.conv(images.flatten(0, 1)[:, None]).mean((2, 3)).reshape(len(images), 12))


NOT_TAKEN = {
    "other channels": (PerChannel, "PerChannel takes images of 3 channels only, and its first layer, by .* has 1: put"),
    "sequences": (
        lambda: nn.Sequential(nn.Conv1d(3, 4, 3), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(4, 4)),
        "Sequential begins with a Conv1d, which takes no images of shape",
    ),
    "no values": (lambda: OtherNetwork().to("meta"), "A: .* has no values yet: put an image through the network"),
    "lazy": (lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(4)), "A: 1.weight has no values yet"),
    "quantised": (
        lambda: torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(3, 4)), {nn.Linear}),
        "A: .* is no tensor of numbers: give the network before it is quantised",
    ),
    "dict": (lambda: Returns("dict"), "Returns puts out a dict: return logits alone"),
    "tuple": (lambda: Returns("tuple"), "Returns puts out a tuple: return logits alone"),
    "random": (lambda: Returns("random"), "puts out other values when the same image comes again"),
    "of the batch": (lambda: Returns("of the batch"), "puts out other values for an image when other images are in"),
    "probabilities": (lambda: Returns("probabilities"), "puts out probabilities.*: return logits"),
    "probabilities of findings": (
        lambda: Returns("probabilities of findings"),
        "puts out probabilities.*: return logits, without the sigmoid",
    ),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", NOT_TAKEN)
def test_networks_that_cannot_be_compared(kind: str, trained: Trained) -> None:
    """One line with the reason, before anything is measured."""
    make, message = NOT_TAKEN[kind]
    with pytest.raises(UserError, match=message):
        transferscope.compare(make(), make(), images=trained.images, analyses=QUICK)


def test_saved(trained: Trained, tmp_path: Path) -> None:
    """A folder has the answers, the tables and the merged weights, which the answers name."""
    models = [trained.models[name] for name in ("first", "second")]
    comparison = transferscope.compare(
        *models, images=trained.images, analyses=QUICK | {"merging": {"methods": ["uniform"]}}
    )
    folder = comparison.save(tmp_path / "out")
    card = AnswerCard.from_json((folder / "answers.json").read_text())
    assert card["averaging"].file == str(folder / "merged.safetensors")
    assert (folder / "merged.safetensors").is_file()
    assert (folder / "replacement.csv").is_file()
    with pytest.raises(UserError, match="give the name of a new folder"):
        comparison.save(folder)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images": (torch.zeros(8, 3, SIDE, SIDE), torch.full((8,), 7))}, "labels reach from 7 to 7.*4 classes"),
        ({"images": (torch.zeros(8, 3, SIDE, SIDE, dtype=torch.uint8), torch.zeros(8))}, "give floats"),
        ({"images": (torch.zeros(8, 3, SIDE, SIDE + 1), torch.zeros(8))}, "squares"),
        ({"images": (torch.zeros(8, 3, SIDE, SIDE), torch.zeros(7))}, "8 images and 7 labels"),
        ({"images": (torch.zeros(2, 3, SIDE, SIDE), torch.zeros(2))}, "too few"),
        ({"images": {"test": None}}, "parts train and test"),
        ({"images": 3}, "give a folder"),
        ({"images": "nowhere"}, "nowhere"),
        ({"names": ["same", "same"]}, "give each its own"),
        ({"pairs": [("A", "Z")]}, "Z is no model; there are A, B"),
        ({"pairs": [("A", "B"), ("B", "A")]}, "name each pair once"),
        ({"pairs": [("A", "A")]}, "two different labels"),
        ({"pairs": []}, "two different labels"),
        ({"images": (torch.zeros(8, 3, SIDE, SIDE), torch.zeros(8)), "max_images": 1}, "max_images is 1: give 4"),
    ],
)
def test_what_does_not_fit_is_one_line(options: dict[str, Any], message: str, trained: Trained) -> None:
    """Each error names what is wrong and what is taken."""
    with pytest.raises(UserError, match=message) as caught:
        transferscope.compare(trained.models["first"], trained.models["other"], analyses=QUICK, **options)
    assert "\n" not in str(caught.value)


def test_models_that_have_no_image_in_common_are_one_line(trained: Trained) -> None:
    """Another number of classes, and another size of images, are named with the models; without images they compare."""
    small, large = PatchNetwork(32), PatchNetwork(64)
    images = (torch.zeros(8, 3, 32, 32), torch.zeros(8))
    with pytest.raises(UserError, match="B takes images of 64 px only, and another model 32 px"):
        transferscope.compare(small, large, images=images, analyses=QUICK)
    with pytest.raises(UserError, match="test images are of 32 px, and the networks take 64 px only"):
        transferscope.compare(large, large, images=images, analyses=QUICK)
    with pytest.raises(UserError, match="A has 4 classes and B 3"):
        transferscope.compare(trained.models["first"], build_model("squeezenet1_1", 3), images=images, analyses=QUICK)


class Tutorial(nn.Module):
    """A grey network of one size that views its features, with its classifier registered first."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(5 * 10 * 10, 3)
        self.conv = nn.Conv2d(1, 5, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(torch.relu(self.conv(images)).view(-1, 500))


def test_networks_as_tutorials_define_them_are_compared(tmp_path: Path) -> None:
    """The mistakes are those of the networks' own logits; without images noise of a size that they take is used."""
    generator = torch.Generator().manual_seed(0)
    images, labels = torch.randn(120, 1, 12, 12, generator=generator), torch.arange(120) % 3
    torch.manual_seed(3)
    first, second = Tutorial(), Tutorial()
    given = {"train": (images[:60], labels[:60]), "test": (images[60:], labels[60:])}
    comparison = transferscope.compare(first, second, images=given, analyses=QUICK)
    with torch.no_grad():
        right = [float((one(images[60:]).argmax(1) == labels[60:]).float().mean()) for one in (first, second)]
    row = comparison.tables["mistakes"].iloc[0]
    assert [row["accuracy_a"], row["accuracy_b"]] == pytest.approx(right)
    assert transferscope.compare(first, second).tables["identity"]["num_inputs"].tolist() == [8]


def test_functions_and_folders_that_do_not_serve_are_one_line(tmp_path: Path) -> None:
    """A function that returns no module, a folder without images, and one with other classes than the models have."""
    (tmp_path / "nets.py").write_text("def nothing(num_classes): print()\n")
    (tmp_path / "empty").mkdir()
    for name in ("cat", "dog"):
        (tmp_path / "two" / name).mkdir(parents=True)
        for index in range(4):
            Image.new("RGB", (16, 16), (40 * index, 0, 0)).save(tmp_path / "two" / name / f"{index}.png")
    path = tmp_path / "a.pth"
    torch.save(build_model("squeezenet1_1", 3, seed=0).state_dict(), path)
    for options, message in (
        ({"model": f"{tmp_path / 'nets.py'}:nothing"}, "returned None, not a torch.nn.Module: let it return"),
        ({"images": tmp_path / "empty"}, "empty"),
        ({"images": tmp_path / "two"}, "images have 2 classes and the networks 3: give class_list"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            transferscope.compare(path, path, analyses=QUICK, **options)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("bad", [{}, {"a": 3}, 7])
def test_what_is_no_model_is_one_line(bad: Any, trained: Trained) -> None:
    """A value that is no model is named by its label."""
    with pytest.raises(UserError, match=r"^B"):
        transferscope.compare(trained.models["first"], bad, analyses=QUICK)


def test_nan_weights_are_refused(trained: Trained) -> None:
    """Weights that are no numbers are one line, which names the model."""
    broken = {key: torch.full_like(tensor, torch.nan) for key, tensor in trained.state("first").items()}
    with pytest.raises(UserError, match=r"^B: .*not a number"):
        transferscope.compare(trained.state("first"), broken, model=trained.models["first"], analyses=QUICK)


def test_importing_the_package_stays_light() -> None:
    """`import transferscope` imports neither torch nor what the function needs, and no Kedro ever."""
    code = (
        "import sys, transferscope\n"
        "assert not {'torch', 'pandas', 'kedro'} & set(sys.modules)\n"
        "transferscope.compare\n"
        "assert 'torch' in sys.modules and 'kedro' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
