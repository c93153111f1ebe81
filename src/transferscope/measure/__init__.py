"""Measure checkpoints on images: the analyses applied to a `Checkpoint` or two on a `Bench`, also in a notebook.

The public names are imported when they are first used, so that importing the package costs nothing.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "basins": ["basin"],
        "bench": ["Bench"],
        "connection": ["Connection", "connect"],
        "criticalities": ["criticality", "rewinding"],
        "identities": ["Identity", "identity"],
        "lines": ["line"],
        "margins": ["margin"],
        "merging": ["Merging", "merge"],
        "planes": ["plane"],
        "predictions": ["mistakes", "predict"],
        "replacements": ["calibration", "replacement"],
        "similarity": ["cka"],
        "spectra": ["spectrum"],
        "weights": ["distance", "distance_travelled"],
    },
)
