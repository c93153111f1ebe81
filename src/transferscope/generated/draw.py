"""The embedded images: drawn by seed, written as the real ones are distributed, to be read by the same readers.

Every root holds GENERATED.txt, which says so, with seed and settings, and a hidden file with the digests of all others.
A root whose GENERATED.txt agrees and whose files are whole is left as it is. The same settings give the same bytes with
the same versions of NumPy and Pillow.
"""

from __future__ import annotations

import ast
import csv
import hashlib
import io
import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from transferscope.generated.objects import OBJECTS
from transferscope.generated.patients import COLUMNS, Study, draw_studies
from transferscope.generated.shapes import SHAPES
from transferscope.generated.styles import STYLES, clipart, quickdraw, real
from transferscope.generated.thorax import Exposure, draw_thorax
from transferscope.images.source import GENERATED_MARK
from transferscope.system.atomic import replace_folder, space_errors
from transferscope.system.errors import UserError
from transferscope.system.processes import spread
from transferscope.system.progress import progress_bar
from transferscope.system.stored import DamagedError, file_digest, is_whole, read_json, write_json
from transferscope.system.temporaries import temporary_folder

log = logging.getLogger(__name__)

DOMAINS = ("real", "clipart", "quickdraw")
CHEXPERT_FOLDER = "CheXpert-v1.0-small"
SMALLEST_TO_LARGEST = 0.25
"""About the size of the smallest class of a domain, divided by that of the largest."""

DIGESTS = ".digests.json"
"""The file in a root with the digests of all others."""

REDRAW = "`kedro run --pipelines data_prep` draws it again"

CHUNK = 64
"""Images that a process draws before it says so."""

Drawings = dict[str, Callable[[], Image.Image]]
"""The recipe of each image, by its path below the root."""


def generate_source(
    root: str | Path, *, num_train: int = 6000, num_test: int = 1000, seed: int = 0, size: int = 48
) -> Path:
    """Twelve shapes in four styles, as train/<class>/*.png and val/<class>/*.png; classes of equal size.

    Returns `root`, which is complete or as it was before. Raises `UserError` for a root that holds other files and for
    fewer images than classes.
    """
    settings = {"kind": "source", "num_train": num_train, "num_test": num_test, "seed": seed, "size": size}
    _check_counts(len(SHAPES), num_train=num_train, num_test=num_test, size=size)

    drawings: Drawings = {
        f"{part}/{name}/{name}_{index:05d}.png": partial(_draw_source, seed, part, index, name, size)
        for part, count in (("train", num_train), ("val", num_test))
        for label, name in enumerate(SHAPES)
        for index in range(label, count, len(SHAPES))
    }
    return _generate(Path(root), settings, drawings)


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

    drawings: Drawings = {}
    lists: dict[str, str] = {}
    for domain in domains:
        for part, paths in _domain_paths(domain, num_train, num_test, seed).items():
            lists[f"{domain}_{part}.txt"] = "".join(f"{path} {label}\n" for path, (label, _, _) in paths.items())
            for path, (_, name, number) in paths.items():
                drawings[path] = partial(_draw_domain, seed, domain, name, number, size)
    return _generate(Path(root), settings, drawings, lists)


def generate_chest(root: str | Path, *, num_images: int = 1500, seed: int = 0, size: int = 48) -> Path:
    """Drawn radiographs in CheXpert's layout: CheXpert-v1.0-small/train.csv and the JPEG files that it names.

    Five findings are drawn; the other columns hold what follows from these, or nothing. Several images may show one
    patient. Returns `root`, which is complete or as it was before. Raises `UserError` for a root that holds other
    files.
    """
    settings = {"kind": "chest", "num_images": num_images, "seed": seed, "size": size}
    _check_counts(1, num_images=num_images, size=size)

    drawings: Drawings = {}
    rows: list[dict[str, str]] = []
    for index, (study, view) in zip(range(num_images), _views(_generator(seed, "patients")), strict=False):
        path = f"{CHEXPERT_FOLDER}/train/patient{study.patient:05d}/study{study.number}/view{view}_frontal.jpg"
        drawings[path] = partial(_draw_chest, seed, index, study, size)
        rows.append({"Path": path, **study.report})
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return _generate(Path(root), settings, drawings, {f"{CHEXPERT_FOLDER}/train.csv": table.getvalue()})


def _draw_source(seed: int, part: str, index: int, name: str, size: int) -> Image.Image:
    rng = _generator(seed, "source", part, index)
    style = STYLES[str(rng.choice(list(STYLES)))]
    return style(SHAPES[name](rng), rng, size)


def _draw_domain(seed: int, domain: str, name: str, number: int, size: int) -> Image.Image:
    rng = _generator(seed, domain, name, number)
    style = {"real": real, "clipart": clipart, "quickdraw": quickdraw}[domain]
    return style(OBJECTS[name](rng), rng, size)


def _draw_chest(seed: int, index: int, study: Study, size: int) -> Image.Image:
    rng = _generator(seed, "chest", index)
    exposure = Exposure.draw(rng, portable=study.portable, devices=study.devices)
    return draw_thorax(study.body, exposure, study.severities, rng, size)


def _domain_paths(domain: str, num_train: int, num_test: int, seed: int) -> dict[str, dict[str, tuple[int, str, int]]]:
    """By part and path of a domain's images: the label, its name, and the number of the image among those of it."""
    paths: dict[str, dict[str, tuple[int, str, int]]] = {"train": {}, "test": {}}
    rng = _generator(seed, "sizes", domain)
    profile = _profile(len(OBJECTS), _generator(seed, "profile"), rng)
    train, test = _apportion(profile, num_train), _apportion(profile, num_test)
    for label, name in enumerate(OBJECTS):
        for number, part in enumerate(rng.permutation(["train"] * train[label] + ["test"] * test[label]), start=1):
            paths[str(part)][f"{domain}/{name}/{domain}_{number:04d}.png"] = (label, name, number)
    return paths


def _write_images(folder: Path, drawings: Drawings) -> dict[str, str]:
    """Draw some images and save them; their digests by path."""
    for path, draw in drawings.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        _save(draw(), file)
    return {path: file_digest(folder / path) for path in drawings}


def _save(image: Image.Image, path: Path) -> None:
    if path.suffix == ".jpg":
        image.save(path, quality=95)
    else:
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


def _generate(root: Path, settings: dict[str, object], drawings: Drawings, texts: dict[str, str] | None = None) -> Path:
    """Write a root anew unless it is whole and its marker agrees; drawing takes all processes that there are."""
    marker = _marker(settings, len(drawings))
    if _is_current(root, marker, len(drawings)):
        return root
    ours = (root / GENERATED_MARK).is_file() or is_whole(root / DIGESTS)
    if root.exists() and (root.is_file() or any(root.iterdir())) and not ours:
        raise UserError(f"{root} holds files that were not generated: name another folder for generated images")
    with _new_folder(root) as folder, progress_bar(f"drawing {settings['kind']}", len(drawings)) as advance:
        folder.mkdir()
        digests: dict[str, str] = {}
        for drawn in spread(partial(_write_images, folder), _chunks(drawings)):
            digests |= drawn
            advance(len(drawn))
        for path, text in ((texts or {}) | {GENERATED_MARK: marker}).items():
            (folder / path).write_text(text, encoding="utf-8")
            digests[path] = file_digest(folder / path)
        write_json(folder / DIGESTS, {"files": dict(sorted(digests.items()))})
    return root


def _chunks(drawings: Drawings) -> Iterator[Drawings]:
    remaining = iter(drawings.items())
    while chunk := dict(islice(remaining, CHUNK)):
        yield chunk


@contextmanager
def _new_folder(root: Path) -> Iterator[Path]:
    """A folder that takes the place of `root` on success.

    Not `atomic_folder`: that waits until each of ten thousand files has reached the disk, twice as long as drawing
    takes; these files can be drawn again.
    """
    with space_errors(root):
        root.parent.mkdir(parents=True, exist_ok=True)
        with temporary_folder(root) as work:
            yield work / root.name
            replace_folder(work / root.name, root)


def _marker(settings: dict[str, object], total: int) -> str:
    """Text of GENERATED.txt; the last line also changes with the code that draws."""
    written = json.dumps(settings, sort_keys=True)
    digest = hashlib.sha256(written.encode())
    for file in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(_statements(file.read_text(encoding="utf-8")).encode())
    return (
        f"The {total} images in this folder are generated: a program drew them, they show nothing real.\n"
        f"Drawn by transferscope.generated.draw with seed {settings['seed']}.\n"
        f"Settings: {written}\n"
        f"Digest of settings and drawing code: {digest.hexdigest()}\n"
    )


def _statements(source: str) -> str:
    """The code without comments, docstrings and layout, so that only a change of what it does draws images anew."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            node.body = [part for part in node.body if not _is_text(part)] or [ast.Pass()]
    return ast.unparse(tree)


def _is_text(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _is_current(root: Path, marker: str, total: int) -> bool:
    path = root / GENERATED_MARK
    if not path.is_file() or path.read_bytes() != marker.encode():
        return False
    if sum(file.suffix in (".png", ".jpg") for file in root.rglob("*")) != total:
        return False
    try:
        _check_files(root)
    except (OSError, DamagedError) as error:
        log.warning("generated images are drawn again: %s", error)
        return False
    return True


def check_generated(root: Path) -> None:
    """Raise DamagedError for a file of generated images that is missing or not as it was drawn.

    Of other images nothing is known, so nothing is checked.
    """
    if (root / DIGESTS).is_file():
        try:
            _check_files(root)
        except FileNotFoundError as error:
            raise DamagedError(Path(str(error.filename)), "it is missing", REDRAW) from None
        except DamagedError as error:
            raise DamagedError(error.path, error.reason, REDRAW) from None


def _check_files(root: Path) -> None:
    """Raise DamagedError or FileNotFoundError for a file that is not as it was drawn.

    Files that were not written since, which their times of change show, are not read.
    """
    index = root / DIGESTS
    digests = read_json(index)["files"]
    drawn = index.stat().st_ctime_ns
    written = [name for name in digests if (root / name).stat().st_ctime_ns > drawn]
    for name in written:
        if file_digest(root / name) != digests[name]:
            raise DamagedError(root / name, "it is not what was drawn")
    if written:
        with suppress(OSError):
            os.utime(index)
