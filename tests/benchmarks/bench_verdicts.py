"""How often a verdict is false, and how often a true effect is seen, for every structure of claim of the default study.

Each structure is simulated as often as asked for, with the estimate and the rule of `transferscope.claims`, beside the
rule of earlier versions (all comparisons agree: holds; the mean is on the other side in most tasks: does not hold).

    uv run python tests/benchmarks/bench_verdicts.py --studies 20000
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np
from numpy.typing import NDArray

from transferscope.claims.comparisons import Comparison, Region
from transferscope.claims.inference import Design, Kinship, estimate, make_design
from transferscope.claims.verdict import FAILS, HOLDS, judge
from transferscope.experiment.names import RunName

Array = NDArray[np.float64]
Numbers = dict[RunName, Array]
Random = np.random.Generator
DIFFERENCE: Region = (0.0, np.inf)


@dataclass(frozen=True)
class Group:
    """Comparisons of one place: every unit of the first side with every one of the second, or with a bound.

    A unit is a tuple of one run or of two.
    """

    place: str
    first: Sequence[tuple[RunName, ...]]
    second: Sequence[tuple[RunName, ...]] = ()

    def comparisons(self) -> Iterator[Comparison]:
        for a, b in self.couples():
            yield Comparison(place=self.place, unit="", effect=0.0, runs=frozenset((*a, *b)))

    def couples(self) -> list[tuple[tuple[RunName, ...], tuple[RunName, ...]]]:
        return [(a, b) for a, b in product(self.first, self.second or [()]) if a != b]


@dataclass(frozen=True)
class Structure:
    """A claim's comparisons, and how to draw their numbers: (random, studies) -> value of a unit, by unit.

    truth: the effect that was drawn, by study, where it differs between studies.
    """

    name: str
    groups: Sequence[Group]
    draw: Callable[[Random, int], Callable[[tuple[RunName, ...]], Array]]
    region: Region = DIFFERENCE
    parent: Callable[[RunName], str | None] = lambda run: None
    image_error: float = np.nan

    def design(self) -> Design:
        every = [one for group in self.groups for one in group.comparisons()]
        return make_design(every, Kinship(parent=self.parent))

    def numbers(self, random: Random, studies: int) -> Array:
        value = self.draw(random, studies)
        zero = np.zeros(studies)
        columns = [value(a) - (value(b) if b else zero) for group in self.groups for a, b in group.couples()]
        return np.stack(columns, axis=-1)


def runs(task: str, kind: str, number: int) -> list[tuple[RunName, ...]]:
    return [(RunName(task, f"{kind}_{index}"),) for index in range(1, number + 1)]


def pairs(task: str, kind: str, number: int) -> list[tuple[RunName, ...]]:
    return [(a, b) for (a,), (b,) in combinations(runs(task, kind, number), 2)]


def mixed(task: str, first: str, second: str, number: int) -> list[tuple[RunName, ...]]:
    return [(a, b) for (a,), (b,) in product(runs(task, first, number), runs(task, second, number))]


def tasks(number: int) -> list[str]:
    return [f"t{index}" for index in range(number)]


def noise_of_runs(
    *,
    effect: float = 0.0,
    spread: Callable[[RunName], float] = lambda run: 1.0,
    parent_spread: float = 0.0,
    parent: Callable[[RunName], str | None] = lambda run: None,
    images: float = 0.0,
) -> Callable[[Random, int], Callable[[tuple[RunName, ...]], Array]]:
    """Numbers of runs: effect of the kind pt, the run's own noise, its parent's, and that of the test images by kind."""

    def draw(random: Random, studies: int) -> Callable[[tuple[RunName, ...]], Array]:
        own: dict[object, Array] = {}

        def of(key: object, scale: float) -> Array:
            if key not in own:
                own[key] = random.standard_normal(studies)
            return scale * own[key]

        def value(unit: tuple[RunName, ...]) -> Array:
            (run,) = unit
            total = of(run, spread(run))
            if run.run.startswith("pt"):
                total = total + effect
            if parent(run) is not None and parent_spread:
                total = total + of(parent(run), parent_spread)
            return total + (of((run.task, run.run.split("_")[0]), images) if images else 0.0)

        return value

    return draw


def noise_of_pairs(
    *, effect: float = 0.0, bound: float = 0.0, own: float = 1.0, common: float = 0.5, product_of: bool = False
) -> Callable[[Random, int], Callable[[tuple[RunName, ...]], Array]]:
    """Numbers of pairs: a part of each run, and one of the pair; or the product of hidden vectors, as similarities are.

    effect: of pairs of two pt. bound: added to all.
    """

    def draw(random: Random, studies: int) -> Callable[[tuple[RunName, ...]], Array]:
        known: dict[object, Array] = {}

        def of(key: object, *shape: int) -> Array:
            if key not in known:
                known[key] = random.standard_normal((studies, *shape))
            return known[key]

        def value(unit: tuple[RunName, ...]) -> Array:
            extra = effect if all(run.run.startswith("pt") for run in unit) else 0.0
            if product_of:
                a, b = (of(run, 3) for run in unit)
                return bound + extra + (a * b).sum(axis=-1)
            return bound + extra + common * of(unit) + sum(own * of(run) for run in unit)

        return value

    return draw


def two_kinds(replicas: int, num_tasks: int, other: int | None = None) -> list[Group]:
    return [Group(task, runs(task, "pt", replicas), runs(task, "rit", other or replicas)) for task in tasks(num_tasks)]


def several_parents(run: RunName, number: int) -> str | None:
    return f"shapes.p_{(int(run.run.split('_')[1]) - 1) % number + 1}" if run.run.startswith("pt") else None


def uneven(run: RunName) -> float:
    """Runs from scratch vary twice as much, and those of the last task three times."""
    return (2.0 if run.run.startswith("rit") else 1.0) * (3.0 if run.task == "t3" else 1.0)


TRIANGLE = [("t0", "t1"), ("t0", "t2"), ("t1", "t2")]


def lines(kind: str) -> list[Group]:
    return [Group(f"{a} {b}", [(RunName(a, f"{kind}_1"), RunName(b, f"{kind}_1"))]) for a, b in TRIANGLE]


def other_domains() -> list[Group]:
    """Four evaluations of three pairs of runs; those of one pair differ by as much as the pairs do."""
    where = [("t0", "t1"), ("t1", "t0"), ("t2", "t0"), ("t2", "t1")]
    return [Group(f"{a} on {b}", runs(a, "pt", 1), runs(a, "rit", 1)) for a, b in where]


MARGIN = 1.0
BELOW: Region = (-np.inf, MARGIN)


def null_structures() -> list[Structure]:
    """Every structure of claim of the default study without an effect, and some that studies of users have."""
    four = tasks(4)
    structures = [
        Structure("runs, 2 v 2, 4 tasks", two_kinds(2, 4), noise_of_runs()),
        Structure("runs, 2 v 2, 4 tasks, uneven spread", two_kinds(2, 4), noise_of_runs(spread=uneven)),
        Structure(
            "runs, 2 v 2, 4 tasks, and 1 v 1 on a fifth",
            [*two_kinds(2, 4), Group("t4", runs("t4", "pt", 1), runs("t4", "rit", 1))],
            noise_of_runs(),
        ),
        Structure("runs, 2 v 2, 3 tasks", two_kinds(2, 3), noise_of_runs()),
        Structure("runs, 2 v 2, 2 tasks", two_kinds(2, 2), noise_of_runs()),
        Structure("runs, 2 v 2, 1 task", two_kinds(2, 1), noise_of_runs()),
        Structure("runs, 1 v 1, 4 tasks", two_kinds(1, 4), noise_of_runs(spread=uneven)),
        Structure("runs, 1 v 1, 2 tasks", two_kinds(1, 2), noise_of_runs()),
        Structure("runs, 2 v 1, 1 task", two_kinds(2, 1, 1), noise_of_runs()),
        Structure(
            "runs, 2 v 2, 4 tasks, test images vary as much", two_kinds(2, 4), noise_of_runs(images=1.0), image_error=2**0.5
        ),
        Structure(
            "runs, 10 v 10, 1 task, test images vary as much",
            two_kinds(10, 1), noise_of_runs(images=1.0), image_error=2**0.5,
        ),
        Structure("other domains, 4 places, 3 pairs of runs", other_domains(), noise_of_runs()),
    ]  # fmt: skip
    for form in (False, True):
        words = "pairs, products" if form else "pairs, sums"
        draw = noise_of_pairs(product_of=form)
        structures += [
            Structure(f"{words}, two pt v mixed, 2 replicas, 4 tasks",
                      [Group(t, pairs(t, "pt", 2), mixed(t, "pt", "rit", 2)) for t in four], draw),
            Structure(f"{words}, two pt v two rit, 2 replicas, 4 tasks",
                      [Group(t, pairs(t, "pt", 2), pairs(t, "rit", 2)) for t in four], draw),
            Structure(f"{words}, two pt v two rit, 2 replicas, 2 tasks",
                      [Group(t, pairs(t, "pt", 2), pairs(t, "rit", 2)) for t in tasks(2)], draw),
            Structure(f"{words}, two pt v mixed, 3 replicas, 1 task",
                      [Group(t, pairs(t, "pt", 3), mixed(t, "pt", "rit", 3)) for t in tasks(1)], draw),
            Structure(f"{words}, two pt v two rit, 3 replicas, 1 task",
                      [Group(t, pairs(t, "pt", 3), pairs(t, "rit", 3)) for t in tasks(1)], draw),
            Structure(f"{words}, two pt v mixed, 5 replicas, 2 tasks",
                      [Group(t, pairs(t, "pt", 5), mixed(t, "pt", "rit", 5)) for t in tasks(2)], draw),
            Structure(f"{words}, mixed v bound, 2 replicas, 4 tasks",
                      [Group(t, mixed(t, "pt", "rit", 2)) for t in four], draw),
            Structure(f"{words}, lines between three tasks v bound", lines("pt"), draw),
            Structure(f"{words}, same start v bound, 2 tasks",
                      [Group(t, [(RunName(t, "rit_1"), RunName(t, "same_1"))]) for t in tasks(2)], draw),
            Structure(f"{words}, at the margin of equivalence, 1 pair, 4 tasks",
                      [Group(t, pairs(t, "pt", 2)) for t in four], noise_of_pairs(bound=MARGIN, product_of=form), BELOW),
            Structure(f"{words}, at the margin of equivalence, 3 replicas, 4 tasks",
                      [Group(t, pairs(t, "pt", 3)) for t in four], noise_of_pairs(bound=MARGIN, product_of=form), BELOW),
        ]  # fmt: skip
    for number in (2, 3, 5):
        kin = lambda run, number=number: several_parents(run, number)  # noqa: E731
        structures.append(
            Structure(f"runs, {number} P, 2 runs of each, 4 tasks, P varies by 2", two_kinds(2 * number, 4),
                      noise_of_runs(parent=kin, parent_spread=2.0), parent=kin)
        )  # fmt: skip
    return structures


def one_parent_structures() -> list[Structure]:
    """One P for all P-T, whose own effect is drawn in every study: what the verdict says of other P."""
    kin = lambda run: several_parents(run, 1)  # noqa: E731
    return [
        Structure(f"one P, 2 v 2, 4 tasks, P varies by {scale}", two_kinds(2, 4),
                  noise_of_runs(parent=kin, parent_spread=scale), parent=kin)
        for scale in (1.0, 2.0, 4.0)
    ]  # fmt: skip


def rates(structure: Structure, studies: int, seed: int = 0) -> dict[str, float]:
    """Share of studies in which the claim holds and does not hold, by the rule and by that of earlier versions."""
    random = np.random.default_rng([seed, len(structure.name), *structure.name.encode()])
    design, numbers = structure.design(), structure.numbers(random, studies)
    errors = np.full(numbers.shape[-1], structure.image_error)
    verdict = judge(estimate(design, numbers, errors), structure.region)
    old_holds, old_fails = earlier_rule(design, _value(numbers, structure.region))
    return {
        "holds": float((verdict == HOLDS).mean()),
        "fails": float((verdict == FAILS).mean()),
        "old holds": float(old_holds.mean()),
        "old fails": float(old_fails.mean()),
    }


def _value(numbers: Array, region: Region) -> Array:
    return np.minimum(numbers - region[0], region[1] - numbers)


def earlier_rule(design: Design, values: Array) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """All comparisons agree, at least two; the mean is on the other side in more than half of the places."""
    if values.shape[-1] < 2:
        return np.zeros(len(values), dtype=bool), np.zeros(len(values), dtype=bool)
    holds = (values > 0).all(axis=-1)
    against = sum(
        (values[:, design.places == place].sum(axis=-1) < 0).astype(int) for place in range(design.num_places)
    )
    return holds, ~holds & (2 * np.asarray(against) > design.num_places)


def about_this_parent(structure: Structure, studies: int, seed: int = 0) -> dict[str, float]:
    """False verdicts of one P, read as what they say: about this P."""
    random = np.random.default_rng([seed, len(structure.name)])
    scale = float(structure.name.rsplit(" ", 1)[1])
    parents = scale * random.standard_normal(studies)
    numbers = Structure("", structure.groups, noise_of_runs()).numbers(random, studies) + parents[:, None]
    verdict = judge(estimate(structure.design(), numbers), structure.region)
    return {
        "holds": float(((verdict == HOLDS) & (parents < 0)).mean()),
        "fails": float(((verdict == FAILS) & (parents > 0)).mean()),
    }


def power_structures(replicas: int) -> list[Structure]:
    """A true effect of one standard deviation of a run."""
    kin = lambda run: several_parents(run, replicas)  # noqa: E731
    return [
        Structure("runs, 4 tasks", two_kinds(replicas, 4), noise_of_runs(effect=1.0)),
        Structure("runs, 1 task", two_kinds(replicas, 1), noise_of_runs(effect=1.0)),
        Structure("runs, 4 tasks, a P for each replica", two_kinds(replicas, 4),
                  noise_of_runs(effect=1.0, parent=kin, parent_spread=0.5), parent=kin),
        Structure("pairs, two pt v mixed, 4 tasks",
                  [Group(t, pairs(t, "pt", replicas), mixed(t, "pt", "rit", replicas)) for t in tasks(4)],
                  noise_of_pairs(effect=1.0)),
        Structure("pairs, no barrier, 4 tasks", [Group(t, pairs(t, "pt", replicas)) for t in tasks(4)],
                  noise_of_pairs(bound=-1.0), BELOW),
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=20_000)
    studies = parser.parse_args().studies
    print(f"{'no effect':64} {'method':9} df {'holds':>6} {'fails':>6}   earlier rule")
    for one in null_structures():
        rate, design = rates(one, studies), one.design()
        print(
            f"{one.name:64} {design.method:9} {design.df:2} {rate['holds']:6.3f} {rate['fails']:6.3f}   "
            f"{rate['old holds']:6.3f} {rate['old fails']:6.3f}"
        )
    for one in one_parent_structures():
        rate, about = rates(one, studies), about_this_parent(one, studies)
        print(f"{one.name + ', about this P':64} {'':12} {about['holds']:6.3f} {about['fails']:6.3f}")
        print(
            f"{one.name + ', read as about any P':64} {'':12} {rate['holds']:6.3f} {rate['fails']:6.3f}   "
            f"{rate['old holds']:6.3f} {rate['old fails']:6.3f}"
        )
    print(f"\n{'true effect of 1 sd: holds (earlier rule)':64} " + " ".join(f"{n:>14}" for n in (2, 3, 5, 10)))
    for index in range(len(power_structures(2))):
        row = []
        for replicas in (2, 3, 5, 10):
            one = power_structures(replicas)[index]
            rate = rates(one, studies)
            row.append(f"{rate['holds']:6.3f} ({rate['old holds']:.3f})")
        print(f"{one.name:64} " + " ".join(row))


if __name__ == "__main__":
    main()
