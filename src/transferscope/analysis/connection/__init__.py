"""Ways between two networks beside the straight line: tempered, on a trained curve, by module, by the epoch of a split.

The public names are imported when they are first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "barrier_left": ["Remaining", "remaining"],
        "curve": ["CurveTraining", "bezier", "train_curve"],
        "layerwise": ["ModulePoint", "module_points"],
        "split_runs": ["SplitPair", "barriers_by_split"],
        "tempering": ["Temperature", "fit_temperature", "tempered"],
    },
)
