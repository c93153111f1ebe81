"""Images as distributed, as packed, and as a network sees them.

The public names are imported when they are first used, so that importing the package costs nothing.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "augment": ["TrainingTransform"],
        "chexpert": ["read_chexpert"],
        "domainnet": ["read_domainnet"],
        "image_folder": ["read_image_folder"],
        "pack": ["pack_split"],
        "seen_images": ["EvaluationTransform"],
        "source": ["ExampleList", "ImageSource"],
        "split": ["PackedSplit"],
        "union": ["union_split"],
    },
)
