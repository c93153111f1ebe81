"""Training a run, and measuring a model on a split.

The public names are imported when they are first used, so that importing the package costs nothing.
"""

import lazy_loader

from transferscope.system.renamed import renamed_object

_import, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "evaluation": ["evaluate", "metrics_from_logits", "predict"],
        "loop": ["train_run"],
    },
)


def __getattr__(name: str) -> object:
    return renamed_object(__name__, name) or _import(name)
