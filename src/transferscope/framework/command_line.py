"""A user's mistake at the command line: one line each, without a traceback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click
import yaml
from kedro.config import MissingConfigException
from omegaconf.errors import OmegaConfBaseException

from transferscope.system.errors import UserError, one_line


class CommandLineError(UserError, click.ClickException):
    """A user's mistake, shown at the command line without a traceback: one line, or a line for each of several."""

    def __init__(self, message: str):
        click.ClickException.__init__(self, "\n".join(_escaped(line) for line in message.splitlines()))

    def __str__(self) -> str:
        return self.message


def _escaped(line: str) -> str:
    """A line without characters that a terminal would obey; its indentation stays."""
    return line[: len(line) - len(line.lstrip())] + one_line(line)


@contextmanager
def in_one_line(where: str, *, is_needed: bool = False) -> Iterator[None]:
    """Turn mistakes in the configuration into errors of the command line.

    Where files may be missing, as those of credentials, Kedro gets its own error.
    """
    try:
        yield
    except CommandLineError:
        raise
    except (UserError, OmegaConfBaseException, yaml.YAMLError) as error:
        key = getattr(error, "full_key", None)
        raise CommandLineError(f"{where}{f'{key}: ' if key else ''}{_first_lines(error)}") from None
    except MissingConfigException as error:
        if not is_needed:
            raise
        raise CommandLineError(f"{where}{one_line(str(error))}") from None


def _first_lines(error: Exception) -> str:
    """The message; of OmegaConf's, which go on about its classes, the first line."""
    return str(error) if isinstance(error, UserError) else one_line(str(error).strip().partition("\n")[0])
