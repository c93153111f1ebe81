"""Networks on ways between two checkpoints, made when they are asked for and remembered by what makes them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import cached_property
from itertools import count

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from transferscope.analysis.alignment import (
    CorrectedLine,
    Permutation,
    PermutationGroups,
    add_biases,
    match_activations,
    match_weights,
    permutation_groups,
    permute,
)
from transferscope.analysis.batchnorm import batchnorm_layers, recompute_statistics
from transferscope.analysis.connection import CurveTraining, bezier, fit_temperature, tempered, train_curve
from transferscope.analysis.evaluator import Batch, Batches, Evaluator
from transferscope.analysis.interpolation import interpolate
from transferscope.analysis.resampling import Resampling, with_draws
from transferscope.analysis.states import State, check_same_tensors, describe_nonfinite, write_state
from transferscope.experiment.options import ConnectionOptions, Way
from transferscope.experiment.seeds import derive_seed, epoch_order
from transferscope.images.split import PackedSplit
from transferscope.measure.bench import METRICS, Bench, batches, feed_of, inputs, stream, subset, workspace
from transferscope.models.checkpoint import Checkpoint
from transferscope.models.layers import image_channels
from transferscope.models.parametrised import analysed_state
from transferscope.models.state_dicts import state_digest
from transferscope.system.errors import UserError
from transferscope.training.evaluation import metrics_from_logits
from transferscope.training.step import loss_weight, summed_loss

VERSION = 1
"""To be raised when a way or a metric changes its meaning: what was remembered before is then made anew."""
ONE_PASS_BYTES = 32 << 20
"""Images that take no more give statistics of channels in one pass; of more, every layer takes a pass of its own."""

Values = NDArray[np.float64]
Measured = dict[str, Values]
"""`part/metric` -> (1,) or, with resamples, (1 + num_resamples,): on all examples, then under every resample."""


class Ways:
    """Two checkpoints of one architecture, and what lies on the ways between them."""

    def __init__(self, bench: Bench, a: Checkpoint, b: Checkpoint, options: ConnectionOptions) -> None:
        self.bench, self.options, self.checkpoint = bench, options, a
        self.model = workspace(a)
        self.channels = image_channels(self.model)
        self.states = analysed_state(a), analysed_state(b)
        check_same_tensors(*self.states, a.source, b.source)
        for state, checkpoint in zip(self.states, (a, b), strict=True):
            if fault := describe_nonfinite(state, checkpoint.source):
                raise UserError(f"{fault}: there is no way to a run that diverged")
        self._digests = [state_digest(state) for state in self.states]
        self._measure = _Measure(bench.limited(options.max_examples), a, self.channels)
        self._corrected: dict[Way, CorrectedLine] = {}

    def end(self, alpha: float) -> Measured:
        """Measurements of a (alpha 0) or b (1), the same for all ways."""
        return self._measure.of_weights(self.model, self.states[int(alpha)])

    def between(self, way: Way, alpha: float) -> Measured:
        """Measurements at 0 < alpha < 1 on a way that is a line or a curve."""
        way = self._same_as(way)
        if way == "straight":
            return self._measure.of_weights(self.model, interpolate(*self.states, alpha))
        network = self._biased if way == "aligned_repaired" else self.model
        return self._measure.remembered(self._key(way, alpha), lambda: (network, self._state(way, alpha)))

    def _same_as(self, way: Way) -> Way:
        """The way itself, or where matching moves no channel the one that it then is."""
        unmoved: dict[Way, Way] = {"aligned": "straight", "aligned_rescaled": "rescaled", "aligned_curve": "curve"}
        return unmoved[way] if way in unmoved and not self.permutation.moved else way

    def of_module(self, state: State) -> Measured:
        """Measurements of a point of a profile."""
        return self._measure.of_weights(self.model, state)

    @cached_property
    def permutation(self) -> Permutation:
        """The order of a's channels for b's."""
        key = self.bench.key(self.checkpoint, self._key("aligned"))
        stored = self.bench.store.get(key)
        if stored is None:
            stored = self.bench.store[key] = self._match()
        names = [str(name) for name in np.atleast_1d(stored["groups"])]
        sources = {name: torch.from_numpy(np.array(stored[str(place)])) for place, name in enumerate(names)}
        objective, of_identity, dead, tied = stored["facts"].tolist()
        return Permutation(sources, objective, of_identity, int(dead), int(tied))

    @cached_property
    def aligned(self) -> dict[str, Tensor]:
        """b with its channels matched to those of a: the same function."""
        return permute(self._groups, self.permutation, self.states[1]) if self.permutation.moved else self.states[1]

    def _match(self) -> dict[str, NDArray]:
        if self.options.matching == "activations":
            permutation = match_activations(self._groups, self.model, *self.states, self._few_batches)
        else:
            permutation = match_weights(self._groups, *self.states)
        facts = np.array([permutation.objective, permutation.objective_of_identity, permutation.dead, permutation.tied])
        orders = {str(place): source.numpy() for place, source in enumerate(permutation.values())}
        return {"facts": facts, "groups": np.array(list(permutation)), **orders}

    @cached_property
    def _groups(self) -> PermutationGroups:
        images, _ = next(iter(stream(feed_of(self._few), self.channels, size=2)))
        return permutation_groups(self.model, images)

    def _state(self, way: Way, alpha: float) -> State:
        a, b = self.states[0], self.aligned if way.startswith("aligned") else self.states[1]
        if way == "aligned":
            return interpolate(a, b, alpha)
        if way in ("curve", "aligned_curve"):
            return bezier(a, self._bend(way, b), b, alpha)
        if way not in self._corrected:
            repaired = way == "aligned_repaired"
            network = self._biased if repaired else self.model
            ends = [self._settled(state) for state in (a, b)]
            self._corrected[way] = CorrectedLine(network, ends[0], ends[1], self._few_batches, shift=repaired)
        return self._corrected[way].at(alpha).state

    def _settled(self, state: State) -> State:
        """With BatchNorm's statistics of the images that statistics of channels are taken from."""
        if not batchnorm_layers(self.model):
            return state
        write_state(self.model, state)
        recompute_statistics(self.model, self._few_batches)
        return {key: tensor.clone() for key, tensor in self.model.state_dict().items()}

    @cached_property
    def _biased(self) -> nn.Module:
        return add_biases(self.model)

    def _bend(self, way: Way, b: State) -> dict[str, Tensor]:
        """The trained bend; it is kept, since a curve takes longer than all other ways."""
        key = self.bench.key(self.checkpoint, self._key(way))
        stored = self.bench.store.get(key)
        if stored is None:
            train, chosen = self.bench.split("train"), self.options.curve
            steps = chosen.epochs * len(self._rows(0))
            options = CurveTraining(steps=steps, lr=chosen.lr)
            bend = train_curve(self.model, self.states[0], b, self._shuffled(), _loss(train), options)
            stored = self.bench.store[key] = {name: tensor.numpy() for name, tensor in bend.items()}
        return {name: torch.from_numpy(np.array(values)) for name, values in stored.items()}

    def _rows(self, epoch: int) -> list[NDArray[np.int64]]:
        """Examples of the batches of an epoch; a last one of a single example is left out."""
        train = self.bench.split("train")
        order = epoch_order(derive_seed(train.name, "curve"), epoch, len(train))
        parts = np.array_split(order, range(self.options.curve.batch_size, len(order), self.options.curve.batch_size))
        return [part for part in parts if len(part) > 1]

    def _shuffled(self) -> Iterator[Batch]:
        feed = feed_of(self.bench.split("train"))
        labels = torch.as_tensor(np.asarray(feed.split.labels)).to(feed.device)
        for epoch in count():
            rows = self._rows(epoch)
            for part, images in zip(rows, inputs(feed, rows, self.channels), strict=True):
                yield images.contiguous(memory_format=torch.channels_last), labels[torch.from_numpy(part)]

    @cached_property
    def _few(self) -> PackedSplit:
        """Training images from which statistics of channels are taken."""
        return subset(self.bench.split("train"), self.options.statistics, "statistics")

    @cached_property
    def _few_batches(self) -> Batches:
        """The same as network inputs, in one batch where they are small."""
        size = len(self._few) * 4 * self.channels * self._few.pictures.seen_size**2
        if size <= ONE_PASS_BYTES:
            return list(stream(feed_of(self._few), self.channels, size=len(self._few)))
        return batches(self._few, self.channels)

    def _key(self, way: Way, *made: float) -> str:
        """Names what makes the points of a way, besides the architecture."""
        options, key = self.options, [VERSION, way, *self._digests, *made]
        if way.startswith("aligned"):
            key += [options.matching, self._few.digest if options.matching == "activations" else ""]
        if way.endswith(("rescaled", "repaired")):
            key += [self._few.digest]
        if way.endswith("curve"):
            key += [options.curve.model_dump_json(), self.bench.split("train").digest]
        return json.dumps(key)


class _Measure:
    """Metrics on all parts, with one temperature fitted on the training images, remembered by what is measured."""

    def __init__(self, bench: Bench, checkpoint: Checkpoint, channels: int) -> None:
        self.bench, self.checkpoint, self.channels = bench, checkpoint, channels
        self.parts = ["train", *(part for part in bench.splits if part != "train")]
        digests = [bench.split(part).digest for part in self.parts]
        self._context = ("connection", VERSION, *digests, bench.resamples)
        self._evaluators: dict[str, Evaluator] = {}
        self._resamplings: dict[str, Resampling] = {}

    def of_weights(self, network: nn.Module, state: State) -> Measured:
        """Known by the digest of the weights."""
        return self.remembered(state_digest(state), lambda: (network, state))

    def remembered(self, what: str, make: Callable[[], tuple[nn.Module, State]]) -> Measured:
        """Known by `what`; network and weights are made where it is not."""
        key = self.bench.key(self.checkpoint, *self._context, what)
        measured = self.bench.store.get(key)
        if measured is None:
            measured = self.bench.store[key] = self._of(*make())
        return {name: np.atleast_1d(values) for name, values in measured.items()}

    def _of(self, network: nn.Module, state: State) -> Measured:
        write_state(network, state)
        if batchnorm_layers(network):
            recompute_statistics(network, lambda: stream(feed_of(self.bench.split("train")), self.channels))
        curves: Measured = {}
        temperature = None
        for part in self.parts:
            logits, labels = self._evaluator(part).logits_and_labels(network)
            logits, labels = logits.cpu(), labels.cpu()
            if temperature is None:
                temperature = fit_temperature(logits, labels)
                # Without an optimum there is no tempered loss to speak of.
                value = np.nan if temperature.at_bound else temperature.value
                curves[f"{part}/temperature"] = np.full(1 + self.bench.resamples, value)
            measured = self._metrics(part, logits, labels)
            cooled = self._metrics(part, tempered(logits, value), labels)
            curves |= {f"{part}/{metric}": values for metric, values in measured.items()}
            curves[f"{part}/tempered_loss"] = cooled["loss"]
        return curves

    def _metrics(self, part: str, logits: Tensor, labels: Tensor) -> Measured:
        split, resamples = self.bench.split(part), self.bench.resamples
        metrics = metrics_from_logits(logits, labels, multi_label=split.multi_label)
        chosen = {name: value for name, value in metrics.items() if name in METRICS}
        if not resamples:
            return {name: np.atleast_1d(value) for name, value in chosen.items()}
        if part not in self._resamplings:
            self._resamplings[part] = Resampling(len(split), resamples, derive_seed(split.name, part, "resampling"))
        return with_draws(chosen, self._resamplings[part].metrics(logits, labels))

    def _evaluator(self, part: str) -> Evaluator:
        if part not in self._evaluators:
            given = batches(self.bench.split(part), self.channels)
            self._evaluators[part] = Evaluator(given, precision=self.bench.precision)
        return self._evaluators[part]


def _loss(split: PackedSplit) -> Callable[[Tensor, Tensor], Tensor]:
    """Mean loss of a batch, as in training."""

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        targets = labels.float() if split.multi_label else labels.long()
        total = summed_loss(logits, targets, multi_label=split.multi_label)
        return total / loss_weight(targets, multi_label=split.multi_label).to(total.dtype)

    return loss
