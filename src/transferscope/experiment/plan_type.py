"""The type `Plan`: a study with every run spelled out, and the pairs of runs that its analyses compare.

Pure and typed; no file is touched and neither torch nor Kedro is imported.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, product

from transferscope.experiment import options as opt
from transferscope.experiment.merges import MergeSpec, merges_of
from transferscope.experiment.names import NodeName, RunName, is_checkpoint_path
from transferscope.experiment.pairs import Pair, PairGroup, pair_of
from transferscope.experiment.reuse_variants import Variant, variants
from transferscope.experiment.run import Role, RunSpec
from transferscope.experiment.run_groups import RunGroup, node_names, run_groups
from transferscope.experiment.study import Study, is_multi_label

NO_TREATMENT = {*opt.NOT_IN_WEIGHTS, "keep_epochs", "evaluate_every", "evaluate_train_on"}
"""Options of a training in which runs that are compared as replicas may differ."""


CROSS_DOMAIN_ROLES: tuple[tuple[Role, Role], ...] = (
    ("fine_tuned", "fine_tuned"),
    ("fine_tuned", "from_scratch"),
    ("from_scratch", "from_scratch"),
    ("file", "file"),
)
"""Roles of the two runs of each curve of a cross-domain figure."""


@dataclass(frozen=True)
class Plan:
    """A validated study with every run spelled out."""

    study: Study
    runs: dict[str, RunSpec]

    @cached_property
    def _runs_by_task(self) -> dict[str, list[RunSpec]]:
        by_task: dict[str, list[RunSpec]] = {}
        for run in self.runs.values():
            by_task.setdefault(run.task, []).append(run)
        return by_task

    def runs_of(self, task: str) -> list[RunSpec]:
        return self._runs_by_task.get(task, [])

    def targets(self) -> list[str]:
        """Tasks that are compared on: all that a run is trained on, less those that only provide pre-training."""
        sources = {self.runs[run.pretrained].task for run in self.runs.values() if run.pretrained in self.runs}
        tasks = dict.fromkeys(run.task for run in self.runs.values())
        return [task for task in tasks if task not in sources and task not in self.views]

    @cached_property
    def run_groups(self) -> list[RunGroup]:
        """Runs that are trained as one."""
        return run_groups(self.runs)

    @cached_property
    def nodes_of_runs(self) -> dict[str, NodeName]:
        """The nodes of all runs by full name, see `node_of`."""
        return node_names(self.runs, self.run_groups)

    def node_of(self, run: RunSpec) -> NodeName:
        """The node that trains a run, alone or with others, or takes in its file."""
        return self.nodes_of_runs[run.full_name]

    @cached_property
    def variants(self) -> list[Variant]:
        """The kinds of run of feature reuse and source epochs."""
        return variants(self.study)

    @cached_property
    def views(self) -> dict[str, str]:
        """Tasks on which only these kinds are trained, and the task whose images each of them shows."""
        return {variant.view: variant.task for variant in self.variants}

    def in_role(self, task: str, role: Role) -> list[RunSpec]:
        """Runs of a role on `task`, in the order of the study; `source`: those that the task's runs start from."""
        if role == "source":
            starts = {run.pretrained for run in self.runs_of(task)}
            return [run for name, run in self.runs.items() if name in starts]
        return [run for run in self.runs_of(task) if run.role == role]

    def compared(self, task: str, role: Role) -> list[RunSpec]:
        """Runs of a role that are replicas of each other: those with the model, training and start of the first one.

        The first one is that of the kind with `compared: true`, where there is such a kind. A kind that is trained
        otherwise, with another learning rate or from another epoch of P, is a variant and not among them. Kinds that
        start from replicas of one P are.
        """
        runs = self.in_role(task, role)
        chosen = [run for run in runs if self.study.runs[run.kind].compared] or runs
        return [run for run in runs if treatment(run) == treatment(chosen[0])]

    def left_out(self, task: str, role: Role) -> list[RunSpec]:
        """The other runs of a role: variants, which figures show and claims leave out."""
        compared = {run.full_name for run in self.compared(task, role)}
        return [run for run in self.in_role(task, role) if run.full_name not in compared]

    @property
    def compares_files(self) -> bool:
        """True of a study that trains nothing: all of its runs are checkpoint files, the parent of others included."""
        return bool(self.runs) and all(run.checkpoint is not None for run in self.runs.values())

    def is_multi_label(self, task: str) -> bool:
        """True if an example of the task has several labels."""
        return is_multi_label(self.study, task)

    def has_images(self, task: str) -> bool:
        """True if the task has images; without them its checkpoint files are compared by their weights alone."""
        return self.study.tasks[task].has_images

    def is_generated(self, task: str) -> bool:
        """True if the images of the task, or of a part of it, are drawn and not photographed."""
        parts = self.study.tasks[task].union or (task,)
        return any(part in drawn.tasks for drawn in self.study.generated.values() for part in parts)

    def pairs(self, task: str, kinds: Iterable[opt.KindPair]) -> list[Pair]:
        """Pairs of runs on `task`; a kind that has no run on it is looked for on the task it pre-trains from."""
        pairs: list[Pair] = []
        for kind_a, kind_b in kinds:
            pairs += self._pairs_of_kind(task, kind_a, kind_b)
        return pairs

    def own_pairs(self, task: str) -> list[Pair]:
        """Pairs of runs of the task that analyses of the user's own measure."""
        analyses = self.study.analyses
        if analyses.own is None:
            return []
        others = [options.pairs for options in (analyses.mistakes, analyses.similarity, analyses.landscape) if options]
        kinds = (
            dict.fromkeys(kinds for pairs in others for kinds in pairs)
            if analyses.own.pairs is None
            else analyses.own.pairs
        )
        return [pair for pair in self.pairs(task, kinds) if pair.run_a.task == pair.run_b.task == task]

    def pair_groups(self, task: str, kinds: Iterable[opt.KindPair]) -> list[PairGroup]:
        """The pairs of `pairs`, in the same order, by the nodes that measure them."""
        groups: list[PairGroup] = []
        for kind_a, kind_b in kinds:
            pairs = self._pairs_of_kind(task, kind_a, kind_b)
            together = self.study.analyses.pairs_in_one_node
            if pairs and (len(pairs) > opt.PAIRS_APART if together is None else together):
                groups.append(PairGroup(f"{kind_a}__{kind_b}", tuple(pairs), together=True))
            else:
                groups += [PairGroup(pair.name, (pair,), together=False) for pair in pairs]
        return groups

    def gallery_pair(self, task: str) -> Pair | None:
        """The first compared pair of two kinds of run with different labels, e.g. a P-T and an RI-T."""
        mistakes = self.study.analyses.mistakes
        for kinds in mistakes.pairs if mistakes else ():
            for pair in self._pairs_of_kind(task, *kinds)[:1]:
                if pair.run_a.label != pair.run_b.label:
                    return pair
        return None

    def connected(self, task: str) -> list[Pair]:
        """Pairs on `task` between which ways other than the straight line are measured: the first of two kinds each."""
        landscape = self.study.analyses.landscape
        options = landscape.connection if landscape else None
        if landscape is None or options is None or task not in (options.tasks or self.targets()):
            return []
        kinds = landscape.pairs if options.pairs is None else options.pairs
        chosen: list[Pair] = []
        for one in kinds:
            by_split: dict[int | None, list[Pair]] = {}
            for pair in self.pairs(task, [one]):
                by_split.setdefault(pair.split_epoch, []).append(pair)
            chosen += [pair for pairs in by_split.values() for pair in pairs[: options.pairs_of_each]]
        return chosen

    def merges(self) -> list[MergeSpec]:
        """Merges of several runs into one, in the order of the study."""
        return merges_of(self.study, self.runs)

    def cross_domain_pairs(self, scenario: opt.CrossDomainOptions) -> dict[str, Pair]:
        """The curves of a cross-domain figure by name: between the first compared run of each role on both tasks.

        Two fine-tuned runs, a fine-tuned one and one from scratch, two from scratch, and two files.
        """
        curves: dict[str, Pair] = {}
        for roles in CROSS_DOMAIN_ROLES:
            ends = [self.compared(task, role) for task, role in zip(scenario.tasks, roles, strict=True)]
            if all(ends):
                a, b = (runs[0] for runs in ends)
                curves[f"{scenario.figure}_{a.name}__{b.name}"] = pair_of(a, b)
        return curves

    @cached_property
    def _pairs(self) -> dict[tuple[str, str, str], list[Pair]]:
        return {}

    def _pairs_of_kind(self, task: str, kind_a: str, kind_b: str) -> list[Pair]:
        key = (task, kind_a, kind_b)
        if key not in self._pairs:
            self._pairs[key] = self._find_pairs(*key)
        return self._pairs[key]

    def _find_pairs(self, task: str, kind_a: str, kind_b: str) -> list[Pair]:
        runs_a, runs_b = self._of_kind(task, kind_a), self._of_kind(task, kind_b)
        if kind_a == kind_b:
            couples = self._among(kind_a, runs_a)
        elif kind_a in self._sharing(kind_b) or kind_b in self._sharing(kind_a):
            couples = [(a, b) for a, b in product(runs_a, runs_b) if a.replica == b.replica]
        elif kind_a in self._copied(kind_b) or kind_b in self._copied(kind_a):
            couples = [(a, b) for a, b in product(runs_a, runs_b) if pair_of(a, b).split_epoch is not None]
        else:
            couples = list(product(runs_a, runs_b))
        return [pair_of(a, b) for a, b in couples]

    def _among(self, kind: str, runs: list[RunSpec]) -> list[tuple[RunSpec, RunSpec]]:
        """Pairs of runs of one kind; of checkpoint files as many as their kind asks for."""
        options = self.study.runs.get(kind)
        if options is None or options.checkpoints is None or options.pairing == "all":
            return list(combinations(runs, 2))
        before = runs[:-1] if options.pairing == "consecutive" else runs[:1] * (len(runs) - 1)
        return list(zip(before, runs[1:], strict=True))

    def _of_kind(self, task: str, kind: str) -> list[RunSpec]:
        own = [run for run in self.runs_of(task) if run.kind == kind]
        if own:
            return own
        origins = {run.pretrained for run in self.runs_of(task)}
        return [run for name, run in self.runs.items() if name in origins and run.kind == kind]

    def _sharing(self, kind: str) -> set[str | None]:
        return {self.study.runs[kind].shares_initialisation_with} if kind in self.study.runs else set()

    def _copied(self, kind: str) -> set[str | None]:
        return {self.study.runs[kind].split_from} if kind in self.study.runs else set()


def treatment(run: RunSpec) -> tuple[object, ...]:
    """Everything in which replicas of each other are alike: the model, the training, and the start.

    Replicas of P give replicas of P-T; a P of another task, or of another epoch, makes a variant.
    """
    source = RunName.parse(run.pretrained).task if run.pretrained and not is_checkpoint_path(run.pretrained) else None
    start = (run.initialisation, source, run.pretrained_epoch, run.transfer, run.transfer_until)
    return run.model.model_dump(), run.training.model_dump(exclude=NO_TREATMENT), start


def differ_in_rate(run: RunSpec, other: RunSpec) -> bool:
    """True if two runs of one role would be replicas of each other but for their learning rate."""
    at_its_rate = other.model_copy(update={"training": other.training.model_copy(update={"lr": run.training.lr})})
    same_rate = run.training.lr == other.training.lr
    return run.role == other.role and not same_rate and treatment(run) == treatment(at_its_rate)
