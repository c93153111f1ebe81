"""The files that a checkpoint's path leads to: itself, or those of a folder in Hugging Face's layout."""

from __future__ import annotations

import json
import re
from pathlib import Path

from transferscope.system.errors import UserError

SINGLE = (
    "model.safetensors",
    "open_clip_model.safetensors",
    "diffusion_pytorch_model.safetensors",
    "pytorch_model.bin",
    "open_clip_pytorch_model.bin",
)
"""Names of a whole model's weights in a folder; the first that is there is read."""
INDEX_SUFFIX = ".index.json"
"""Ending of the file that lists the parts of a model."""
_PART = re.compile(r"(?P<model>.+)-(?P<part>\d{5})-of-(?P<parts>\d{5})(?P<suffix>\.(?:safetensors|bin|pth?))")
"""Names of the parts of a model, as Hugging Face's libraries write them."""
_MAX_INDEX_BYTES = 2**28


def files_of(path: Path) -> list[Path]:
    """The file itself, or the parts that an index lists, or the weights in a folder.

    Raises UserError for a folder without weights, for an index that is damaged or lists a file that is missing, and for
    one part of several.
    """
    try:
        if path.is_dir():
            return _in_folder(path)
    except OSError as error:
        raise UserError(f"checkpoint {str(path)!r} cannot be read ({error.strerror}): check the path") from error
    if path.name.endswith(INDEX_SUFFIX):
        return _parts(path)
    _check_whole(path)
    return [path]


def _check_whole(path: Path) -> None:
    named = _PART.fullmatch(path.name)
    if named is not None and int(named["parts"]) > 1:
        raise UserError(
            f"checkpoint {path} is part {int(named['part'])} of {int(named['parts'])} of a model: give "
            f"{named['model']}{named['suffix']}{INDEX_SUFFIX}, which lists all parts, or the folder with it; rename "
            "the file if it is a whole model"
        )


def _in_folder(folder: Path) -> list[Path]:
    for name in SINGLE:
        if (folder / name).is_file():
            return [folder / name]
        if (folder / (name + INDEX_SUFFIX)).is_file():
            return _parts(folder / (name + INDEX_SUFFIX))
    if (folder / "saved_model.pb").exists():
        raise UserError(f"checkpoint {folder} is a folder with a TensorFlow model: give weights of torch")
    if (folder / ".metadata").exists():
        raise UserError(
            f"checkpoint {folder} is a folder of a distributed checkpoint: convert it by "
            "python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER FILE"
        )
    unpacked = next((path.parent for path in (folder / "data.pkl", *folder.glob("*/data.pkl")) if path.is_file()), None)
    if unpacked is not None:
        raise UserError(
            f"checkpoint {folder} is a file of torch.save that was unpacked, as some browsers do: download it again "
            f"without that, or pack {unpacked.name} by `zip -0 -r weights.pth {unpacked.name}`"
        )
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_file())
    inside = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "") or "none"
    raise UserError(f"checkpoint {folder} is a folder: give a file (files in it: {inside})")


def _parts(index: Path) -> list[Path]:
    try:
        if index.stat().st_size > _MAX_INDEX_BYTES:
            raise ValueError("too large")
        names = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
        if not names or any(Path(name).name != name for name in names):
            raise ValueError("it lists no files of its folder")
    except OSError as error:
        raise UserError(f"checkpoint {index} cannot be read ({error.strerror}): check the path") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(f"checkpoint {index} is no index of a model in parts: download it again") from error
    for name in names:
        if not (index.parent / name).is_file():
            raise UserError(f"checkpoint {index.parent} lacks {name}, which {index.name} lists: download it")
    return [index.parent / name for name in names]
