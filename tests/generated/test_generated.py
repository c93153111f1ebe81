"""The generated images: layouts, honesty, repeatability, and that they show what their labels say."""

from __future__ import annotations

import csv
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from damage import flip
from transferscope.generated import draw as generated
from transferscope.generated.draw import DOMAINS, generate_chest, generate_domains, generate_source
from transferscope.generated.objects import OBJECTS
from transferscope.generated.patients import COLUMNS, LOADINGS, draw_studies
from transferscope.generated.shapes import SHAPES
from transferscope.generated.styles import STYLES
from transferscope.generated.thorax import FINDINGS, Body, Exposure, draw_thorax
from transferscope.images.chexpert import read_chexpert
from transferscope.images.domainnet import read_domainnet
from transferscope.images.image_folder import read_image_folder
from transferscope.system.errors import UserError

GENERATORS = {
    "source": (generate_source, {"num_train": 14, "num_test": 12}),
    "domains": (generate_domains, {"num_train": 11, "num_test": 10}),
    "chest": (generate_chest, {"num_images": 12}),
}


def contents(root: Path) -> dict[str, bytes]:
    return {file.relative_to(root).as_posix(): file.read_bytes() for file in root.rglob("*") if file.is_file()}


@pytest.fixture(params=GENERATORS)
def generate(request):
    function, counts = GENERATORS[request.param]
    return lambda root, **changes: function(root, **(counts | changes))


@pytest.fixture(scope="module")
def domains(tmp_path_factory) -> Path:
    return generate_domains(tmp_path_factory.mktemp("images") / "domains", num_train=70, num_test=30, size=32)


@pytest.fixture(scope="module")
def chest(tmp_path_factory) -> Path:
    return generate_chest(tmp_path_factory.mktemp("images") / "chest", num_images=200, size=16)


@pytest.fixture(scope="module")
def chest_rows(chest) -> list[dict[str, str]]:
    with (chest / "CheXpert-v1.0-small" / "train.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_same_settings_same_bytes(generate, tmp_path):
    """Two roots of the same settings are identical, byte for byte."""
    assert contents(generate(tmp_path / "a")) == contents(generate(tmp_path / "b"))


def test_another_seed_draws_other_images(generate, tmp_path):
    """No image survives a change of the seed."""
    first, second = contents(generate(tmp_path / "a")), contents(generate(tmp_path / "b", seed=1))
    images = [path for path in first.keys() & second.keys() if path.endswith(("png", "jpg"))]
    assert images
    assert all(first[path] != second[path] for path in images)


def test_says_that_it_is_generated(generate, tmp_path):
    """GENERATED.txt says that the images show nothing real, and by which seed they were drawn."""
    text = (generate(tmp_path / "a", seed=7) / "GENERATED.txt").read_text()
    assert "are generated" in text
    assert "with seed 7" in text


def test_unchanged_root_is_left_alone(generate, tmp_path):
    """A second call with the same settings touches no file."""
    root = generate(tmp_path / "a")
    before = {file: file.stat().st_mtime_ns for file in root.rglob("*")}
    generate(root)
    assert before == {file: file.stat().st_mtime_ns for file in root.rglob("*")}


def test_changed_settings_replace_the_root(generate, tmp_path):
    """Another size leaves no file of the old one."""
    root = generate(tmp_path / "a")
    generate(root, size=20)
    assert contents(root) == contents(generate(tmp_path / "b", size=20))


def test_lost_image_is_drawn_again(generate, tmp_path):
    """A root that lacks an image is not taken for complete."""
    root = generate(tmp_path / "a")
    before = contents(root)
    next(file for file in root.rglob("*") if file.suffix in (".png", ".jpg")).unlink()
    assert contents(generate(root)) == before


def test_foreign_files_are_never_replaced(generate, tmp_path):
    """A folder of the user's own files is refused and kept."""
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="holds files that were not generated"):
        generate(tmp_path)
    assert contents(tmp_path) == {"mine.txt": b"mine"}


def test_interrupted_drawing_leaves_nothing(generate, tmp_path, monkeypatch):
    """When drawing fails half-way, neither a root nor a temporary folder stays."""
    calls = []

    def fail_on_fifth(self, *args, **kwargs):
        calls.append(self)
        if len(calls) == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", fail_on_fifth)
    with pytest.raises(KeyboardInterrupt):
        generate(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_full_disk_is_a_users_error(generate, tmp_path, monkeypatch):
    """A full disk is one line that names the root."""

    def full(self, *args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(UserError, match=r"no space left on device while writing .*a: "):
        generate(tmp_path / "a")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda root: generate_source(root, num_train=11), "num_train: 11 generated images are too few: at least 12"),
        (lambda root: generate_domains(root, num_test=9), "num_test: 9 generated images are too few: at least 10"),
        (lambda root: generate_chest(root, num_images=0), "num_images: 0 generated images are too few"),
        (lambda root: generate_domains(root, domains=("real", "sketch")), r"expected some of .*, got sketch"),
        (lambda root: generate_domains(root, domains=()), "got none"),
        (lambda root: generate_chest(root, size=8), r"size: .* 8 pixels"),
    ],
)
def test_impossible_settings_are_named(call, message, tmp_path):
    """Counts, sizes and domains that cannot be drawn raise before anything is written."""
    with pytest.raises(UserError, match=message):
        call(tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_only_code_draws_images_anew():
    """Comments, docstrings and layout leave the digest of the drawing code as it is; another number changes it."""
    plain = "def side(x):\n    return 2 * x\n"
    worded = '"""A module."""\n# why\ndef side(x):\n    """Say so."""\n    return (2 *\n            x)  # because\n'
    assert generated._statements(plain) == generated._statements(worded)
    assert generated._statements(plain) != generated._statements(plain.replace("2", "3"))


def test_source_is_read_as_class_folders(tmp_path):
    """The reader of class folders finds twelve equal classes, none of them a class of the domains."""
    source = read_image_folder(generate_source(tmp_path / "a", num_train=36, num_test=24, size=16))
    assert source.generated
    assert source.class_names == tuple(sorted(SHAPES))
    assert not set(source.class_names) & set(OBJECTS)
    assert np.bincount(source.train.labels).tolist() == [3] * 12
    assert np.bincount(source.test.labels).tolist() == [2] * 12


def test_source_mixes_all_styles(tmp_path, monkeypatch):
    """About equally many source images are drawn in each style."""
    used = Counter()

    def count(name):
        return lambda figure, rng, size: (used.update([name]), Image.new("RGB", (size, size)))[1]

    monkeypatch.setattr(generated, "STYLES", {name: count(name) for name in STYLES})
    generate_source(tmp_path / "a", num_train=400, num_test=12)
    assert all(70 < used[name] < 140 for name in STYLES)


@pytest.mark.parametrize("name", ["clipart/*/*.png", "clipart_train.txt", "GENERATED.txt", ".digests.json"])
@pytest.mark.parametrize("damage", ["bit", "deleted", "cut off"])
def test_damaged_images_are_drawn_again(tmp_path, name, damage):
    """A pixel, a list of labels, the mark or the digests: the next call leaves the files that there were."""
    arguments = {"domains": ("clipart",), "num_train": 20, "num_test": 20, "size": 16}
    root = generate_domains(tmp_path / "a", **arguments)
    before = contents(root)
    path = next(root.glob(name))
    time.sleep(0.02)
    if damage == "bit":
        flip(path, path.stat().st_size // 2)
    elif damage == "deleted":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-4])
    assert contents(root) != before
    generate_domains(root, **arguments)
    assert contents(root) == before


def test_more_images_keep_the_first_ones(tmp_path):
    """An image of the source does not depend on how many there are."""
    few = contents(generate_source(tmp_path / "a", num_train=12, num_test=12))
    more = contents(generate_source(tmp_path / "b", num_train=30, num_test=12))
    few.pop("GENERATED.txt")
    few.pop(".digests.json")
    assert few.items() <= more.items()


@pytest.mark.parametrize("domain", DOMAINS)
def test_domains_are_read_as_domainnet(domains, domain):
    """The reader of DomainNet finds one label space, disjoint parts, and every file."""
    source = read_domainnet(domains, domain)
    assert source.generated
    assert source.class_names == tuple(sorted(OBJECTS))
    assert (len(source.train), len(source.test)) == (70, 30)
    assert not set(source.train.paths) & set(source.test.paths)
    for path, label in zip(source.train.paths, source.train.labels, strict=True):
        assert path.split("/")[:2] == [domain, source.class_names[label]]


def test_list_lines_are_path_and_label(domains):
    """A list holds one `real/anchor/real_0001.png 0` a line."""
    line = (domains / "real_train.txt").read_text().splitlines()[0]
    path, label = line.split(" ")
    assert path.startswith("real/anchor/real_0")
    assert label == "0"


def test_class_sizes_are_uneven_and_similar_across_domains(tmp_path, monkeypatch):
    """Largest to smallest class is about 4 to 1; the order is about the same in all domains, the sizes are not."""
    for name in ("real", "clipart", "quickdraw"):
        monkeypatch.setattr(generated, name, lambda figure, rng, size: Image.new("RGB", (1, 1)))
    root = generate_domains(tmp_path / "a", num_train=400, num_test=20)
    sizes = {domain: np.bincount(read_domainnet(root, domain).train.labels) for domain in DOMAINS}
    for counts in sizes.values():
        assert 3 < counts.max() / counts.min() < 5.5
    assert sizes["real"].tolist() != sizes["clipart"].tolist()
    assert np.corrcoef(list(sizes.values())).min() > 0.9


@pytest.mark.parametrize("total", [10, 11, 37, 1000])
def test_class_sizes_sum_to_the_total(total):
    """Rounding loses no image and empties no class."""
    shares = generated._profile(10, np.random.default_rng(0), np.random.default_rng(1))
    counts = generated._apportion(shares, total)
    assert counts.sum() == total
    assert counts.min() >= 1


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("size", [16, 33])
def test_styles_draw_squares_in_rgb(style, size):
    """Every class in every style is an RGB image of the asked size that is not blank."""
    for sketch in (SHAPES | OBJECTS).values():
        rng = np.random.default_rng(3)
        image = STYLES[style](sketch(rng), rng, size)
        assert (image.size, image.mode) == ((size, size), "RGB")
        assert np.ptp(np.asarray(image)) > 50


@pytest.mark.parametrize("name", SHAPES | OBJECTS)
def test_figures_stay_in_their_square(name):
    """Before the pose, all points of a figure lie in [-1.1, 1.1] and are finite, whatever the details."""
    for seed in range(30):
        for part in (SHAPES | OBJECTS)[name](np.random.default_rng(seed)):
            assert part.points.ndim == 2
            assert part.points.shape[1] == 2
            assert np.abs(part.points).max() <= 1.1


def test_chest_has_the_columns_of_chexpert(chest_rows):
    """The header is CheXpert's; every label is 1.0, 0.0, -1.0 or blank, and all of them occur in each finding."""
    assert tuple(chest_rows[0]) == COLUMNS
    for finding in FINDINGS:
        assert {row[finding] for row in chest_rows} == {"1.0", "0.0", "-1.0", ""}
    assert {row["Sex"] for row in chest_rows} == {"Male", "Female"}


def test_chest_is_read_as_chexpert(chest):
    """The reader of CheXpert finds five findings and several images of one patient."""
    source = read_chexpert(chest, num_train=120, num_test=80)
    assert source.generated
    assert source.class_names == FINDINGS
    assert (len(source.train), len(source.test)) == (120, 80)
    patients = {path.split("/")[-3] for path in (*source.train.paths, *source.test.paths)}
    assert len(patients) < 150


def test_findings_go_together():
    """Severities of findings with a common cause are positively correlated; the parts of variance add up to at most 1."""
    rng = np.random.default_rng(0)
    severities = [next(draw_studies(rng)).severities for _ in range(600)]
    table = np.array([[severity[finding] > 0 for finding in FINDINGS] for severity in severities], dtype=float)
    correlation = np.corrcoef(table.T)
    assert correlation[0, 1] > 0.15
    assert correlation[2, 4] > 0.1
    assert all(heart**2 + infection**2 < 1 for heart, infection in LOADINGS.values())


def test_uncertain_labels_are_mostly_weak_findings():
    """A report of -1.0 stands for a weak finding more often than for a strong one or none."""
    rng = np.random.default_rng(0)
    uncertain = [
        study.severities[finding]
        for study in (next(draw_studies(rng)) for _ in range(600))
        for finding in FINDINGS
        if study.report.get(finding) == "-1.0"
    ]
    assert np.mean([0 < severity < 0.5 for severity in uncertain]) > 0.6


def thorax(**severities: float) -> np.ndarray:
    """Mean of ten films of ten patients, brightness in 0..1; the same patients whatever the severities."""
    films = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        body, exposure = Body.draw(rng), Exposure.draw(rng, portable=False, devices=False)
        film = draw_thorax(body, exposure, dict.fromkeys(FINDINGS, 0.0) | severities, rng, 32)
        films.append(np.asarray(film, dtype=float) / 255)
    return np.mean(films, axis=0)


@pytest.mark.parametrize(
    ("finding", "rows", "columns"),
    [
        ("Cardiomegaly", slice(18, 23), slice(20, 25)),
        ("Edema", slice(12, 20), slice(8, 24)),
        ("Consolidation", slice(8, 22), slice(6, 26)),
        ("Atelectasis", slice(19, 24), slice(4, 28)),
        ("Pleural Effusion", slice(19, 25), slice(4, 28)),
    ],
)
def test_findings_whiten_the_lung_where_they_belong(finding, rows, columns):
    """The stronger a finding, the brighter its region of the lungs."""
    clear, weak, strong = (thorax(**{finding: severity})[rows, columns].mean() for severity in (0.0, 0.4, 1.0))
    assert clear + 0.004 < weak < strong - 0.004


def test_findings_leave_the_neck_alone():
    """What lies above the lungs does not tell the findings."""
    clear, ill = thorax(), thorax(**dict.fromkeys(FINDINGS, 1.0))
    assert np.abs(clear - ill)[:3].mean() < 0.02
