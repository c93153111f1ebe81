"""Names are read as they are written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transferscope.experiment.names import CheckpointName, EntryName, Namespace, NodeName, PairName, RunName
from transferscope.system.errors import UserError

words = st.from_regex(r"[a-z][a-z0-9_]{0,12}", fullmatch=True)
epochs = st.one_of(st.sampled_from(["best", "final"]), st.integers(0, 10**6))
runs = st.builds(RunName, words, words)
checkpoints = st.builds(CheckpointName, words, words, epochs)
pairs = st.builds(PairName, checkpoints, checkpoints)
nodes = st.builds(NodeName, words, words, st.none() | words)
namespaces = st.builds(Namespace, words, st.none() | words)
entries = st.one_of(st.builds(EntryName, words, st.none() | words), st.builds(EntryName, words, words, words))


@given(st.one_of(runs, checkpoints, pairs, nodes, namespaces, entries))
def test_parse_reads_what_str_writes(
    name: RunName | CheckpointName | PairName | NodeName | Namespace | EntryName,
) -> None:
    """Every name that can be made comes back from its text, type and all."""
    assert type(name).parse(str(name)) == name


@given(checkpoints)
def test_a_checkpoint_and_its_run_name_each_other(name: CheckpointName) -> None:
    """The run at the same epoch is the checkpoint again."""
    assert name.run_name.at(name.epoch) == name


@given(words, words, words)
def test_a_task_that_is_given_fills_in_for_one_that_is_missing(task: str, other: str, run: str) -> None:
    """Without a task in the text the given one counts, else that of the text; the epoch is final unless named."""
    assert RunName.parse(run, task=task) == RunName(task, run)
    assert RunName.parse(f"{other}.{run}", task=task) == RunName(other, run)
    assert CheckpointName.parse(run, task=task) == CheckpointName(task, run, "final")
    assert CheckpointName.parse(f"{run}@3", task=task) == CheckpointName(task, run, 3)


@pytest.mark.parametrize(
    "text", ["", "pt_1", "a.b.c", "clipart.pt_1@final", "Clipart.pt_1", "clipart.1", "a. b", "a.b\n"]
)
def test_what_is_no_run_is_refused_by_its_text(text: str) -> None:
    """One line that shows what was given and how a run is written."""
    with pytest.raises(UserError) as error:
        RunName.parse(text)
    assert "\n" not in str(error.value)
    assert any(part in str(error.value) for part in ("clipart.pt_1", "lower-case"))


@pytest.mark.parametrize(
    "text", ["clipart.pt_1@", "clipart.pt_1@last", "clipart.pt_1@-1", "clipart.pt_1@1.5", "a.b@final@0"]
)
def test_what_is_no_epoch_is_refused(text: str) -> None:
    """An epoch is best, final or a number from 0 on."""
    with pytest.raises(UserError):
        CheckpointName.parse(text)


@pytest.mark.parametrize("epoch", [-1, 1.0, True, None, "last"])
def test_epochs_are_checked_where_a_name_is_made(epoch: object) -> None:
    """A float that happens to be whole is refused too: `1.0` and `1` would be two texts of one checkpoint."""
    with pytest.raises(UserError, match="best, final or a number"):
        CheckpointName("clipart", "pt_1", epoch)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["clipart.pt_1@final", "a.b & a.c & a.d", "a.b&a.c"])
def test_what_is_no_pair_is_refused(text: str) -> None:
    """A pair has two checkpoints."""
    with pytest.raises(UserError, match="pair"):
        PairName.parse(text)


@pytest.mark.parametrize("text", ["draw", "a.b.c.d", "a..b"])
def test_what_is_no_node_is_refused(text: str) -> None:
    """A node has a pipeline, and a task or none."""
    with pytest.raises(UserError, match="node"):
        NodeName.parse(text)


def test_stems_of_pairs() -> None:
    """Within a task the runs alone, across tasks with their tasks."""
    a, b, p = (RunName.parse(text).at("final") for text in ("clipart.pt_1", "clipart.pt_2", "shapes.p_1"))
    assert PairName(a, b).stem == "pt_1__pt_2"
    assert PairName(a, p).stem == "clipart_pt_1__shapes_p_1"


@given(words, words, words, st.integers(1, 99))
def test_an_entry_names_its_owner(task: str, kind: str, form: str, replica: int) -> None:
    """What an entry is of is the run with its task, or the task alone, or nothing."""
    assert EntryName.parse(f"{task}.{kind}_{replica}.{form}").owner == str(RunName(task, f"{kind}_{replica}"))
    assert EntryName.parse(f"{task}.{form}").owner == task
    assert EntryName.parse(form).owner == ""


@given(nodes)
def test_a_node_lies_in_its_namespace(name: NodeName) -> None:
    """The namespace in its full name, and the task's around it where it has one; a node outside all is in none."""
    assert Namespace.of_node(str(name)) == name.namespace
    assert name.namespace.levels == tuple(filter(None, [name.task, str(name.namespace)]))
    assert Namespace.of_node(name.node) is None


def test_replicas_of_a_kind() -> None:
    """Only a number at the end is that of a replica."""
    parts = {
        run: (RunName("clipart", run).kind, RunName("clipart", run).replica) for run in ("pt_1", "p_t_12", "vgg_a")
    }
    assert parts == {"pt_1": ("pt", "1"), "p_t_12": ("p_t", "12"), "vgg_a": ("vgg_a", "")}
