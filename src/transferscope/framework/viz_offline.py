"""Kedro-Viz without a request to another machine: no font, no search for a newer version, no script of anyone else."""

from __future__ import annotations

import re
from typing import Any

from transferscope.framework import kedro_private

POLICY = "default-src 'self' file: data: blob: 'unsafe-inline' 'unsafe-eval'"
"""Of a page: browsers refuse all that it would load from another machine."""


def for_this_machine(page: str) -> str:
    """Remove the links of a page to other machines, which browsers follow despite a policy, and add the policy."""
    page = re.sub(r'\s*<link\b[^>]*"https?://[^>]*>', "", page)
    return page.replace("<head>", f'<head>\n<meta http-equiv="Content-Security-Policy" content="{POLICY}">', 1)


def stay_on_this_machine() -> None:
    """Keep Kedro-Viz from other machines in this process, and in the server that it starts.

    Of its commands `kedro viz deploy` alone sends something, to the host that the user names.
    """
    from kedro_viz import server

    if server.run_server is not serve:
        kedro_private.keep_viz_offline(for_this_machine)
        server.run_server = serve


def serve(**options: Any) -> None:
    """Serve Kedro-Viz in a process of its own, where it stays on this machine too."""
    from kedro_viz import server

    run_server = server.run_server  # before it is replaced, in a process that has just begun
    assert run_server is not serve
    stay_on_this_machine()
    run_server(**options)
