"""Architectures, what their modules are, and their checkpoints.

The public names are imported when they are first used, so that importing the package costs nothing.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "checkpoint": [
            "Checkpoint",
            "CheckpointMetadata",
            "check_checkpoint_file",
            "load_checkpoint",
            "save_checkpoint",
        ],
        "compatible": ["check_compatible"],
        "initialisation": ["initialise"],
        "layers": ["block_layers", "feature_layers", "trace_conv_inputs"],
        "modules": ["find_modules"],
        "parts": ["split_at_modules"],
        "recognition": ["Recognition", "recognize"],
        "series": ["CheckpointSeries"],
        "zoo": ["build_model", "model_names"],
    },
)
