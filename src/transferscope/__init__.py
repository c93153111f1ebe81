"""Measure what a pre-trained network passes on when it is fine-tuned, and compare trained networks.

`compare` compares checkpoints in a notebook; it is imported when it is first used.
"""

import lazy_loader

from transferscope.system import renamed

__version__ = "0.2.0.dev0"

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={"answers": ["compare"]})

renamed.install()
