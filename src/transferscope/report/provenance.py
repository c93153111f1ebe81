"""Where and with what the results were computed."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from importlib.metadata import version
from typing import Any

PACKAGES = ("transferscope", "torch", "torchvision", "kedro", "numpy", "scipy", "pandas", "scikit-learn", "matplotlib")


def provenance(study: dict[str, Any]) -> dict[str, Any]:
    """Versions, hardware, and the plan's digest; nothing that names a machine or a person."""
    return {
        "versions": {name: version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "seed": study["seed"],
        "plan_digest": hashlib.sha256(json.dumps(study, sort_keys=True).encode()).hexdigest()[:16],
    }
