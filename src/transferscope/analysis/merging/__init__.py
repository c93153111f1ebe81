"""Weights of several networks of one architecture merged into one: soups, task vectors, Fisher, RegMean, alignment.

States are mappings from names to tensors and are read a tensor at a time, so that a mapping that reads from a file
keeps memory small for any number of candidates. The public names are imported when they are first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "aligned": ["align_to_first", "aligned_average", "rescaled_average"],
        "candidates": ["check_candidates", "check_parent", "parent_correlation"],
        "fisher": ["diagonal_fisher", "fisher_merge"],
        "regression_mean": ["regmean"],
        "soups": ["greedy_soup", "uniform_soup"],
        "task_vectors": ["task_arithmetic", "ties", "wise_ft"],
    },
)
