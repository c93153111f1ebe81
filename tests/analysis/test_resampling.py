from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_limits
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from pretended_device import pretended_device
from transferscope.analysis.device_resamples import DeviceResamples
from transferscope.analysis.resampling import Resampling, with_draws

GENERATOR = torch.Generator().manual_seed(0)


def drawn_rows(resampling: Resampling, draw: int) -> np.ndarray:
    """The examples of one resample, repeated as often as it draws them."""
    counts = resampling.counts[draw].astype(int)
    return np.repeat(np.arange(len(counts)), counts)


def test_single_label_metrics_are_those_of_the_drawn_examples() -> None:
    """Accuracy and loss of a resample equal those of a batch in which the examples are repeated."""
    logits, labels = torch.randn(40, 5, generator=GENERATOR), torch.randint(0, 5, (40,), generator=GENERATOR)
    resampling = Resampling(40, 20, seed=3)
    metrics = resampling.metrics(logits, labels)
    for draw in range(20):
        rows = drawn_rows(resampling, draw)
        assert len(rows) == 40
        assert metrics["accuracy"][draw] == pytest.approx(
            (logits[rows].argmax(1) == labels[rows]).double().mean().item()
        )
        assert metrics["loss"][draw] == pytest.approx(cross_entropy(logits[rows].double(), labels[rows]).item())


def test_multi_label_metrics_are_those_of_the_drawn_examples() -> None:
    """The same with several labels, some unknown, and ties among the scores; AUC by scikit-learn."""
    logits = torch.randn(60, 3, generator=GENERATOR).mul(3).round() / 3
    labels = torch.randint(-1, 2, (60, 3), generator=GENERATOR).to(torch.int8)
    resampling = Resampling(60, 15, seed=4)
    metrics = resampling.metrics(logits, labels)
    for draw in range(15):
        rows = drawn_rows(resampling, draw)
        scores, targets = logits[rows].double(), labels[rows]
        known = targets >= 0
        areas = [roc_auc_score(targets[known[:, k], k], scores[known[:, k], k]) for k in range(3)]
        assert metrics["auc"][draw] == pytest.approx(np.mean(areas))
        loss = binary_cross_entropy_with_logits(scores[known], targets[known].double())
        assert metrics["loss"][draw] == pytest.approx(loss.item())
        right = ((scores > 0) == (targets > 0))[known]
        assert metrics["accuracy"][draw] == pytest.approx(right.double().mean().item())


def test_a_class_with_one_value_has_no_auc() -> None:
    """A label that is always positive is left out of the mean, in every resample."""
    labels = torch.stack([torch.ones(30), torch.arange(30) % 2], dim=1).to(torch.int8)
    logits = torch.randn(30, 2, generator=GENERATOR)
    resampling = Resampling(30, 10, seed=0)
    both = resampling.metrics(logits, labels)["auc"]
    np.testing.assert_allclose(both, resampling.metrics(logits[:, 1:], labels[:, 1:])["auc"])


def test_non_finite_logits_are_nan_and_wrong() -> None:
    """A diverged model has no loss and no AUC, and its NaN predictions are no hits."""
    logits = torch.full((8, 2), float("nan"))
    single = Resampling(8, 4, seed=0).metrics(logits, torch.zeros(8, dtype=torch.int64))
    assert single["accuracy"].tolist() == [0.0] * 4
    assert np.isnan(single["loss"]).all()
    assert np.isnan(Resampling(8, 4, 0).metrics(logits, torch.zeros(8, 2, dtype=torch.int8))["auc"]).all()


def test_the_same_seed_draws_the_same_examples() -> None:
    """Models are compared on the same resamples."""
    assert np.array_equal(Resampling(9, 5, 1).counts, Resampling(9, 5, 1).counts)
    assert not np.array_equal(Resampling(9, 5, 1).counts, Resampling(9, 5, 2).counts)


def test_the_metric_itself_comes_first() -> None:
    """On all examples, then under every resample."""
    metrics = with_draws({"loss": 0.5}, {"loss": np.array([0.4, 0.6]), "accuracy": np.zeros(2)})
    assert {name: values.tolist() for name, values in metrics.items()} == {"loss": [0.5, 0.4, 0.6]}


def test_the_number_of_blas_threads_changes_nothing() -> None:
    """Runs on other machines, or beside other steps, have other numbers of them."""
    logits, labels = torch.randn(3000, 4, generator=torch.Generator().manual_seed(0)), torch.zeros(3000, dtype=int)
    by_threads = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            by_threads.append(Resampling(3000, 300, seed=0).metrics(logits, labels))
    assert all(np.array_equal(by_threads[0][name], by_threads[1][name]) for name in ("accuracy", "loss"))


@pytest.mark.parametrize("num_classes", [0, 1, 5])
def test_a_device_gives_the_metrics_of_the_cpu(num_classes: int) -> None:
    """Ties, unknown labels and a class of one value included; AUCs to the last bit but for the mean over classes."""
    generator = np.random.default_rng(0)
    logits = torch.from_numpy(generator.normal(size=(90, num_classes or 4)).round(1)).float()
    labels = torch.from_numpy(
        generator.integers(0, 4, 90) if num_classes == 0 else generator.integers(-1, 2, logits.shape)
    )
    if num_classes > 1:
        labels[:, 1] = 1
    resampling = Resampling(90, 40, 3)
    expected = resampling.metrics(logits, labels)
    on_device = DeviceResamples(torch.from_numpy(resampling.counts)).metrics(logits, labels)
    assert on_device.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(on_device[name], values, rtol=1e-13, err_msg=name)
    logits[3] = math.inf
    assert np.isnan(DeviceResamples(torch.from_numpy(resampling.counts)).metrics(logits, labels)["loss"]).any()


def test_logits_on_a_device_are_resampled_there() -> None:
    """No logit is copied to the CPU, only the metrics; and the counts go there once."""
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(50, 3, generator=generator), torch.randint(0, 3, (50,), generator=generator)
    resampling = Resampling(50, 20, 0)
    expected = resampling.metrics(logits, labels)
    with pretended_device() as device:
        repeated = [resampling.metrics(logits.to(device), labels.to(device)) for _ in range(2)]
    assert len(resampling._on_device) == 1
    for metrics in repeated:
        for name, values in expected.items():
            np.testing.assert_allclose(metrics[name], values, rtol=1e-13)
