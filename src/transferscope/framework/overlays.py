"""Environments that extend another one: `extends: paper` among the parameters of an environment.

All files of the environment are laid over those of the one that it extends, key by key, and these over base.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from transferscope.system.errors import UserError
from transferscope.system.near import near_matches

EXTENDS = "extends"
"""Key of the parameters that names the environment below."""


def environments_below(
    env: str, base: str, extends: Callable[[str], tuple[str, Any] | None], known: Sequence[str]
) -> list[str]:
    """The environments that one extends, the lowest first, without base, over which all are laid.

    Args:
        env: Name of the environment.
        base: Name of base.
        extends: The file of an environment that has the key `extends`, and its value; None where none has.
        known: All environments.

    Raises:
        UserError: A name is no environment, or is base, or leads back to one that extends it.
    """
    chain = [env]
    while (extension := extends(chain[-1])) is not None:
        place, name = extension
        at = f"{place}: {EXTENDS}"
        if not isinstance(name, str):
            raise UserError(f"{at}: must be the name of another folder of conf/ (got {name!r})")
        if name == base:
            raise UserError(f"{at}: every environment is laid over {base}: leave the key out")
        if name not in known:
            others = (one for one in known if one not in (base, chain[-1]))
            raise UserError(f"{at}: there is no environment '{name}'{near_matches(name, others)}")
        if name == chain[-1]:
            raise UserError(f"{at}: {name} cannot extend itself: name another folder of conf/")
        if name in chain:
            raise UserError(f"{at}: a circle, {' → '.join([*chain, name])}: leave the key out of one of them")
        chain.append(name)
    return chain[:0:-1]


def check_own_data(own: dict[str, Any], env: str, path: str) -> None:
    """UserError where an environment that extends another one would write its results into that one's folder."""
    if "data" not in own:
        raise UserError(f"{path}/globals.yml: give the results a folder of their own, as in `data: data/{env}`")
