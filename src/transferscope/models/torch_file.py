"""State dicts from files of `torch.save`, read without running code from them."""

from __future__ import annotations

import argparse
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from transferscope.system.errors import UserError

_NESTED = ("state_dict", "model", "model_state_dict", "model_state", "net", "network", "module", "weights", "params")
_PREFIXES = ("module.", "_orig_mod.", "model.")
# Plain values that training scripts save beside their weights: the command line and numpy's numbers. All are data.
_SCALAR = np.float64(0).__reduce__()[0]
_HARMLESS: list[Any] = [
    argparse.Namespace,
    np.dtype,
    (_SCALAR, "numpy.core.multiarray.scalar"),
    (_SCALAR, "numpy._core.multiarray.scalar"),
    *(type(np.dtype(name)) for name in ("float64", "float32", "int64", "int32", "bool")),
]


def read_torch_file(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """State dict of a `.pth`, `.pth.tar` or `.pt` file, and what the file says of itself (`epoch`, `extra`).

    Raises UserError, naming the file, where it is cut off, would run code, or holds no state dict.
    """
    content = _unpickle(path)
    state_dict = find_state_dict(content)
    if state_dict is None:
        raise UserError(f"checkpoint {path} holds no state_dict ({_describe(content)}): save model.state_dict() in it")
    return strip_prefixes(state_dict), _about(content)


def find_state_dict(content: Any) -> dict[str, Tensor] | None:
    """`content` itself if it maps names to tensors, or what lies under one of the usual keys, at any depth."""
    if not isinstance(content, Mapping):
        return None
    if content and all(isinstance(value, Tensor) for value in content.values()):
        return dict(content)
    found = (find_state_dict(content[key]) for key in _NESTED if key in content)
    return next((state_dict for state_dict in found if state_dict is not None), None)


def strip_prefixes(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Drop what DataParallel (`module.`), `torch.compile` and Lightning put before every key."""
    for prefix in _PREFIXES:
        if all(key.startswith(prefix) for key in state_dict):
            return strip_prefixes({key.removeprefix(prefix): value for key, value in state_dict.items()})
    return state_dict


def _unpickle(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals(_HARMLESS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if _is_pickle(path):
            raise UserError(
                f"checkpoint {path} holds objects that need code of their own, which is not run: save only "
                f"model.state_dict() ({_first_line(error)})"
            ) from error
        raise _broken(path, error) from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError, AttributeError) as error:
        raise _broken(path, error) from error


def _is_pickle(path: Path) -> bool:
    """Whether the file is whole in its outer form: an archive, or the older bare pickle."""
    return zipfile.is_zipfile(path) or path.read_bytes()[:1] == b"\x80"


def _broken(path: Path, error: Exception) -> UserError:
    return UserError(f"checkpoint {path} is cut off or no file of torch.save ({_first_line(error)}): copy it again")


def _about(content: Any) -> dict[str, Any]:
    about: dict[str, Any] = {}
    if isinstance(content.get("epoch"), int):
        about["epoch"] = content["epoch"]
    if isinstance(content.get("arch"), str):
        # A hint only: `resnet50` means one thing in torchvision, another in timm, a third in a script of one's own.
        about["extra"] = {"arch": content["arch"]}
    return about


def _describe(content: Any) -> str:
    if isinstance(content, Mapping):
        return "its keys are " + ", ".join(str(key) for key in list(content)[:8]) if content else "it is empty"
    return f"it is a {type(content).__name__}"


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
