"""The embedded images: drawn by seed, written as the real ones are distributed, to be read by the same readers.

Every root holds GENERATED.txt, which says so, with seed and settings. A root whose GENERATED.txt agrees is left as it
is. The same settings give the same bytes with the same versions of NumPy and Pillow.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

import transferscope.images.drawing
from transferscope.atomic import replace_folder, space_errors
from transferscope.errors import UserError
from transferscope.images.drawing.objects import OBJECTS
from transferscope.images.drawing.patients import COLUMNS, Study, draw_studies
from transferscope.images.drawing.shapes import SHAPES
from transferscope.images.drawing.styles import STYLES, clipart, quickdraw, real
from transferscope.images.drawing.thorax import Exposure, draw_thorax
from transferscope.images.source import GENERATED_MARK
from transferscope.progress import progress_bar

DOMAINS = ("real", "clipart", "quickdraw")
CHEXPERT_FOLDER = "CheXpert-v1.0-small"
SMALLEST_TO_LARGEST = 0.25
"""About the size of the smallest class of a domain, divided by that of the largest."""

Advance = Callable[..., None]


def generate_source(
    root: str | Path, *, num_train: int = 6000, num_test: int = 1000, seed: int = 0, size: int = 48
) -> Path:
    """Twelve shapes in four styles, as train/<class>/*.png and val/<class>/*.png; classes of equal size.

    Returns `root`, which is complete or as it was before. Raises `UserError` for a root that holds other files and for
    fewer images than classes.
    """
    settings = {"kind": "source", "num_train": num_train, "num_test": num_test, "seed": seed, "size": size}
    _check_counts(len(SHAPES), num_train=num_train, num_test=num_test, size=size)

    def write(folder: Path, advance: Advance) -> None:
        for part, count in (("train", num_train), ("val", num_test)):
            for label, (name, sketch) in enumerate(SHAPES.items()):
                (folder / part / name).mkdir(parents=True)
                for index in range(label, count, len(SHAPES)):
                    rng = _generator(seed, "source", part, index)
                    style = STYLES[str(rng.choice(list(STYLES)))]
                    _save(style(sketch(rng), rng, size), folder / part / name / f"{name}_{index:05d}.png")
                    advance()

    return _generate(Path(root), settings, num_train + num_test, write)


def generate_domains(
    root: str | Path,
    *,
    domains: Sequence[str] = DOMAINS,
    num_train: int = 1000,
    num_test: int = 500,
    seed: int = 0,
    size: int = 48,
) -> Path:
    """Ten things in each domain, in DomainNet's layout: <domain>/<class>/*.png and <domain>_{train,test}.txt.

    `num_train` and `num_test` count the images of one domain. Class sizes are uneven, by about the same profile in all
    domains and parts. Returns `root`, which is complete or as it was before. Raises `UserError` for an unknown domain,
    for a root that holds other files and for fewer images than classes.
    """
    unknown = sorted(set(domains) - set(DOMAINS))
    if unknown or not domains:
        raise UserError(f"domains: expected some of {', '.join(DOMAINS)}, got {', '.join(unknown) or 'none'}")
    _check_counts(len(OBJECTS), num_train=num_train, num_test=num_test, size=size)
    settings = {"kind": "domains", "domains": list(domains), "num_train": num_train, "num_test": num_test}
    settings |= {"seed": seed, "size": size}

    def write(folder: Path, advance: Advance) -> None:
        for domain in domains:
            _write_domain(folder, domain, num_train, num_test, seed, size, advance)

    return _generate(Path(root), settings, len(domains) * (num_train + num_test), write)


def generate_chest(root: str | Path, *, num_images: int = 1500, seed: int = 0, size: int = 48) -> Path:
    """Drawn radiographs in CheXpert's layout: CheXpert-v1.0-small/train.csv and the JPEG files that it names.

    Five findings are drawn; the other columns hold what follows from these, or nothing. Several images may show one
    patient. Returns `root`, which is complete or as it was before. Raises `UserError` for a root that holds other
    files.
    """
    settings = {"kind": "chest", "num_images": num_images, "seed": seed, "size": size}
    _check_counts(1, num_images=num_images, size=size)

    def write(folder: Path, advance: Advance) -> None:
        with_header = [dict(zip(COLUMNS, COLUMNS, strict=True))]
        for index, (study, view) in zip(range(num_images), _views(_generator(seed, "patients")), strict=False):
            path = f"train/patient{study.patient:05d}/study{study.number}/view{view}_frontal.jpg"
            rng = _generator(seed, "chest", index)
            exposure = Exposure.draw(rng, portable=study.portable, devices=study.devices)
            image = draw_thorax(study.body, exposure, study.severities, rng, size)
            file = folder / CHEXPERT_FOLDER / path
            file.parent.mkdir(parents=True, exist_ok=True)
            image.save(file, quality=95)
            with_header.append({"Path": f"{CHEXPERT_FOLDER}/{path}", **study.report})
            advance()
        with (folder / CHEXPERT_FOLDER / "train.csv").open("w", newline="", encoding="utf-8") as stream:
            csv.DictWriter(stream, COLUMNS, restval="", lineterminator="\n").writerows(with_header)

    return _generate(Path(root), settings, num_images, write)


def _write_domain(
    folder: Path, domain: str, num_train: int, num_test: int, seed: int, size: int, advance: Advance
) -> None:
    style = {"real": real, "clipart": clipart, "quickdraw": quickdraw}[domain]
    lists: dict[str, list[str]] = {"train": [], "test": []}
    rng = _generator(seed, "sizes", domain)
    profile = _profile(len(OBJECTS), _generator(seed, "profile"), rng)
    sizes = {"train": _apportion(profile, num_train), "test": _apportion(profile, num_test)}
    for label, (name, sketch) in enumerate(OBJECTS.items()):
        (folder / domain / name).mkdir(parents=True)
        parts = ["train"] * sizes["train"][label] + ["test"] * sizes["test"][label]
        for number, part in enumerate(rng.permutation(parts), start=1):
            path = f"{domain}/{name}/{domain}_{number:04d}.png"
            image_rng = _generator(seed, domain, name, number)
            _save(style(sketch(image_rng), image_rng, size), folder / path)
            lists[str(part)].append(f"{path} {label}\n")
            advance()
    for part, lines in lists.items():
        (folder / f"{domain}_{part}.txt").write_text("".join(lines), encoding="utf-8")


def _save(image: Image.Image, path: Path) -> None:
    image.save(path, compress_level=1)  # twice as fast as the default, a tenth larger


def _views(rng: np.random.Generator) -> Iterator[tuple[Study, int]]:
    for study in draw_studies(rng):
        for view in range(1, study.views + 1):
            yield study, view


def _profile(num_classes: int, shared: np.random.Generator, own: np.random.Generator) -> np.ndarray:
    """Share of each class: geometric from large to small in an order that domains share, each then a little off."""
    shares = np.geomspace(1.0, SMALLEST_TO_LARGEST, num_classes)
    shares = shares[shared.permutation(num_classes)] * own.uniform(0.9, 1.1, num_classes)
    return shares / shares.sum()


def _apportion(shares: np.ndarray, total: int) -> np.ndarray:
    """Whole numbers, at least 1, in proportion to the shares, that sum to `total` (largest remainders)."""
    exact = 1 + shares * (total - len(shares))
    counts = np.floor(exact).astype(int)
    rest = np.argsort(counts - exact, kind="stable")[: total - counts.sum()]
    counts[rest] += 1
    return counts


def _generator(seed: int, *what: str | int) -> np.random.Generator:
    """A generator of its own for everything drawn, so that no image depends on how many come before it."""
    digest = hashlib.sha256(repr((seed, *what)).encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "big")))


def _check_counts(smallest: int, *, size: int, **counts: int) -> None:
    for name, count in counts.items():
        if count < smallest:
            raise UserError(f"{name}: {count} generated images are too few: at least {smallest} are needed")
    if size < 16:
        raise UserError(f"size: generated images of {size} pixels a side show nothing: choose 16 or more")


def _generate(root: Path, settings: dict[str, object], total: int, write: Callable[[Path, Advance], None]) -> Path:
    """Write a root anew unless its marker agrees."""
    marker = _marker(settings, total)
    if _is_current(root, marker, total):
        return root
    if root.exists() and (root.is_file() or any(root.iterdir())) and not (root / GENERATED_MARK).is_file():
        raise UserError(f"{root} holds files that were not generated: name another folder for generated images")
    with _new_folder(root) as folder, progress_bar(f"drawing {settings['kind']}", total) as advance:
        folder.mkdir()
        write(folder, advance)
        (folder / GENERATED_MARK).write_text(marker, encoding="utf-8")
    return root


@contextmanager
def _new_folder(root: Path) -> Iterator[Path]:
    """A folder that takes the place of `root` on success.

    Not `atomic_folder`: that waits until each of ten thousand files has reached the disk, twice as long as drawing
    takes; these files can be drawn again.
    """
    with space_errors(root):
        root.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{root.name}.", suffix=".tmp", dir=root.parent) as work:
            yield Path(work) / root.name
            replace_folder(Path(work) / root.name, root)


def _marker(settings: dict[str, object], total: int) -> str:
    """Text of GENERATED.txt; the last line also changes with the code that draws."""
    written = json.dumps(settings, sort_keys=True)
    digest = hashlib.sha256(written.encode())
    for file in [*sorted(Path(transferscope.images.drawing.__file__).parent.glob("*.py")), Path(__file__)]:
        digest.update(file.read_bytes())
    return (
        f"The {total} images in this folder are generated: a program drew them, they show nothing real.\n"
        f"Drawn by transferscope.images.generated with seed {settings['seed']}.\n"
        f"Settings: {written}\n"
        f"Digest of settings and drawing code: {digest.hexdigest()}\n"
    )


def _is_current(root: Path, marker: str, total: int) -> bool:
    path = root / GENERATED_MARK
    if not path.is_file() or path.read_text(encoding="utf-8") != marker:
        return False
    return sum(file.suffix in (".png", ".jpg") for file in root.rglob("*")) == total
