"""A Kedro project of its own whose study is tiny: every pipeline in it takes seconds."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

TINY = """
generated:
  shapes: {num_train: 60, num_test: 24, size: 24}
  domains: {num_train: 60, num_test: 40, size: 24}
  chest: {num_train: 40, num_test: 40, size: 24}
pictures: {store_size: 16}
tasks:
  chest:
    {num_train: 30, num_test: 36, num_validation: 8, select_best_on: validation, sampling: by_patient,
     pictures: {store_size: 16}}
  clipart_shuffled: {union: [clipart], pictures: {store_size: 16, shuffle: {block_size: 4}}}
model: {options: {widths: [4, 8, 8]}}
training: {epochs: 2, keep_epochs: [1]}
runs:
  p: {training: {epochs: 2}}
  rit_split: {label: RI-T copy, tasks: [quickdraw], split_from: rit, split_epochs: [0, 1]}
feature_reuse: {block_sizes: [4], controls: [statistics]}
source_epochs: {epochs: [1]}
analyses:
  mistakes: {bootstrap: 20}
  spectrum: {vector_layers: [conv1, layer1.0.conv1]}
  similarity: {max_examples: 24, batch_size: 8}
  landscape:
    alphas: {points: 3}
    extrapolation: {points: 4}
    planes: [{name: p_pt_pt, task: clipart, checkpoints: [pt_1@0, pt_1, pt_2], points: 3}]
    connection: {pairs: [[pt, pt], [rit, rit], [rit, rit_split]], max_examples: 30, statistics: 16, alphas: {points: 3}, curve: {epochs: 1, batch_size: 16}}
    basin: {points: 3, rays: 2, deltas: [0.5]}
    criticality: {pages: false, rewind_epochs: [0, 1], positions: {points: 2}, sigmas: [0.0, 0.1], draws: 1, max_examples: 16}
  merging:
    statistics: 16
    fisher_examples: 4
    merges: [{name: pt_domains, candidates: [real.pt_1, clipart.pt_1], union: real_clipart.pt_union_1}]
"""

SMALL = """
inherit_study: false
tasks:
  clipart: {format: domainnet, root: data/01_raw/generated/domains}
generated:
  domains: {draws: domains, tasks: [clipart], num_train: 60, num_test: 40, size: 24}
pictures: {store_size: 16}
model: {options: {widths: [4, 8, 8]}}
training: {epochs: 4, keep_epochs: [1]}
runs:
  rit: {label: RI-T, tasks: [clipart], replicas: 2, training: {lr: 0.05}}
analyses:
  mistakes: {bootstrap: 20, pairs: [[rit, rit]]}
  similarity: null
  spectrum: null
  modules: {groups: {body: [conv1, bias1, "layer*", bias2], head: [fc]}}  # a page each
  landscape:
    pairs: [[rit, rit]]
    alphas: {points: 3}
    extrapolation: {points: 4}
    basin: null
    criticality:
      {tasks: [clipart], runs: [rit_1], rewind_epochs: [0, 1], positions: {points: 2}, sigmas: [0.0, 0.1], draws: 1,
       max_examples: 16}
"""
"""A study of two runs on one task."""


@dataclass(frozen=True)
class Project:
    """A Kedro project folder of its own, with this project's code and configuration."""

    folder: Path

    def session(self, env: str | None = None, params: dict[str, Any] | None = None) -> Any:
        from kedro.framework.session import KedroSession
        from kedro.framework.startup import bootstrap_project

        bootstrap_project(self.folder)
        return KedroSession.create(project_path=self.folder, env=env, runtime_params=params)

    def run(self, **options: Any) -> None:
        with self.session() as session:
            session.run(**options)

    @cached_property
    def catalog(self) -> Any:
        with self.session() as session:
            return session.load_context().catalog

    def load(self, name: str) -> Any:
        return self.catalog.load(name)


def make_project(folder: Path, study: str = TINY) -> Project:
    """The project's configuration in `folder`; its `conf/local` makes it a tiny study, or another."""
    shutil.copy(ROOT / "pyproject.toml", folder)
    shutil.copytree(ROOT / "conf", folder / "conf", ignore=shutil.ignore_patterns("local"))
    (folder / "src").mkdir()  # the package itself is installed
    (folder / "conf" / "local").mkdir()
    (folder / "conf" / "local" / "parameters.yml").write_text(study)
    for path in (folder / "conf").rglob("*.yml"):
        path.write_text(path.read_text().replace("data/01_raw", f"{folder}/data/01_raw"))
    (folder / "conf" / "base" / "globals.yml").write_text(f"data: {folder}/data\n")
    return Project(folder)
