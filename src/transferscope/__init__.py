"""Measure what a pre-trained network passes on when it is fine-tuned, and compare trained networks."""

from transferscope.system import renamed

__version__ = "0.2.0.dev0"

renamed.install()
