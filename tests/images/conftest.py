"""Small trees in the distributed layouts, made for each test."""

from __future__ import annotations

import csv
import io
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

COLUMNS = [
    "Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", "No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly",
    "Lung Opacity", "Lung Lesion", "Edema", "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax",
    "Pleural Effusion", "Pleural Other", "Fracture", "Support Devices",
]  # fmt: skip
FINDINGS = ("Cardiomegaly", "Edema", "Consolidation", "Atelectasis", "Pleural Effusion")


def random_pixels(width: int, height: int, seed: int, channels: int = 3) -> np.ndarray:
    """Smooth enough for JPEG to keep, different for every seed."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (4, 4, channels), dtype=np.uint8).squeeze())
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


def encoded(pixels: np.ndarray, format: str = "PNG", **options: object) -> bytes:
    """The bytes of an image file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format, **options)
    return buffer.getvalue()


@pytest.fixture
def write_image() -> Callable[..., Path]:
    """Write a picture that depends on its seed; the format follows from the extension."""

    def write(path: Path, width: int = 12, height: int = 10, seed: int = 0, channels: int = 3) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random_pixels(width, height, seed, channels)).save(path)
        return path

    return write


@pytest.fixture
def make_domain(tmp_path: Path, write_image: Callable[..., Path]) -> Callable[..., Path]:
    """Write one domain: its lists and as many images per class as asked for; returns the root."""

    def make(
        domain: str = "clipart",
        train: Sequence[int] = (3, 2),
        test: Sequence[int] = (1, 2),
        classes: Sequence[str] = ("apple", "owl", "zebra"),
        folder: str = "data",
        suffix: str = ".png",
    ) -> Path:
        root = tmp_path / folder
        for part, counts in (("train", train), ("test", test)):
            lines = []
            for label, count in enumerate(counts):
                for i in range(count):
                    path = f"{domain}/{classes[label]}/{part}_{i}{suffix}"
                    write_image(root / path, seed=hash_seed(path))
                    lines.append(f"{path} {label}\n")
            (root / f"{domain}_{part}.txt").write_text("".join(lines), encoding="utf-8")
        return root

    return make


def hash_seed(path: str) -> int:
    """The same picture for the same path in every session."""
    return zlib.crc32(path.encode())


@pytest.fixture
def make_chexpert(tmp_path: Path, write_image: Callable[..., Path]) -> Callable[..., Path]:
    """Write a CheXpert-style tree; a row is (patient, study, {finding: text}); returns the root."""

    def make(
        rows: Sequence[tuple[int, int, dict[str, str]]],
        prefix: str = "CheXpert-v1.0-small/",
        folder: str = "CheXpert-v1.0-small",
        images: bool = True,
        view: str = "frontal",
    ) -> Path:
        root = tmp_path / "chest"
        base = root / folder if folder else root
        base.mkdir(parents=True, exist_ok=True)
        with open(base / "train.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS, restval="")
            writer.writeheader()
            for number, (patient, study, findings) in enumerate(rows):
                path = f"train/patient{patient:05d}/study{study}/view1_{view}.png"
                writer.writerow({"Path": prefix + path, "Frontal/Lateral": view.capitalize(), **findings})
                if images:
                    write_image(base / path, seed=number, channels=1)
        return root

    return make
