"""Run the packaged project, `python -m transferscope`, with the options of `kedro run`.

The configuration is the folder `conf` of the working folder, or that of `--conf-source`, and results go below the
working folder.
"""

from __future__ import annotations

from kedro.framework.cli.utils import find_run_command
from kedro.framework.project import configure_project


def main() -> None:
    """Run the pipelines."""
    package = str(__package__)
    configure_project(package)
    find_run_command(package)()


if __name__ == "__main__":
    main()
