"""Connectivity modulo permutation and scale: channels of two networks aligned, and their average corrected.

The public names are imported when they are first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "activations": ["match_activations"],
        "find_groups": ["permutation_groups"],
        "groups": ["Permutation", "PermutationGroups", "permute"],
        "matching": ["match_many", "match_weights"],
        "variance": ["CorrectedLine", "add_biases", "repair", "rescale"],
    },
)
