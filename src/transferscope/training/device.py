"""Choose where and how numbers are computed: device, processes, precision, determinism, private random state."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.utils import deterministic as deterministic_settings

from transferscope.experiment.options import TrainingPrecision
from transferscope.models.precision import training_type
from transferscope.models.zoo import private_random_state
from transferscope.system.gpu_grants import granted_gpus


def choose_device(device: str | torch.device | None) -> torch.device:
    """The given device; None: the first GPU granted to this thread, else the current GPU, else the CPU."""
    if device is not None:
        return torch.device(device)
    granted = granted_gpus()
    if granted:
        return torch.device("cuda", granted[0])
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


class OneProcess:
    """A group of one: nothing to exchange. `distributed.group.ProcessGroup` is several."""

    rank = 0
    size = 1

    @property
    def leads(self) -> bool:
        """True if this process is the one that writes files."""
        return self.rank == 0

    def wrap(self, network: nn.Module, model: nn.Module, images: Tensor) -> nn.Module:
        """The network, such that backward leaves in every process the mean over processes of the gradients.

        model: the network before it was compiled. images: blank ones, to see which parameters a pass gives a gradient.
        """
        return network

    def sum_(self, tensor: Tensor) -> Tensor:
        """Replace `tensor` by its sum over the processes."""
        return tensor

    def wait(self) -> None:
        """Return when every process has come here."""

    def agree(self, values: Sequence[float], device: torch.device) -> bool:
        """True if the values are those of every process; returns when every process has come here."""
        own = torch.tensor(values, dtype=torch.float64, device=device)
        return torch.equal(self.sum_(own.clone()), own * self.size)

    def share(self, num_examples: int) -> tuple[slice, float]:
        """This process's consecutive, even share of a global batch, and the factor of its loss.

        The factor is 1; but where there are fewer examples than processes, those left over compute the first example
        with the factor 0, since every process must take part in the exchange of gradients.
        """
        start, stop = (num_examples * rank // self.size for rank in (self.rank, self.rank + 1))
        return (slice(start, stop), 1.0) if start < stop else (slice(0, 1), 0.0)


def autocast(device: torch.device, precision: TrainingPrecision) -> AbstractContextManager[object]:
    """Matrix products and convolutions in half precision on float32 weights; in float32 nothing changes."""
    dtype = training_type(precision, device)
    return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype=dtype)


def loss_scaler(device: torch.device, precision: TrainingPrecision) -> torch.amp.GradScaler | None:
    """The scaler of the loss that float16 needs, whose smallest gradients would else be 0; None elsewhere."""
    return torch.amp.GradScaler(device.type) if training_type(precision, device) == torch.float16 else None


def _set_deterministic(deterministic: bool, *, compiled: bool = False) -> None:
    """Switch torch's deterministic algorithms, and those of its compiler where it is, or will be, loaded.

    `use_deterministic_algorithms` loads the compiler to tell it so, which takes longer than a small training.
    """
    if compiled or sys.modules.get("torch._inductor"):
        torch.use_deterministic_algorithms(deterministic)
    else:
        torch.set_deterministic_debug_mode("error" if deterministic else "default")


class _Switches:
    """Determinism belongs to the process: trainings in several threads share it while they agree, and else wait."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._users = 0
        self._deterministic = False
        self._before = (False, False, True)

    def acquire(self, deterministic: bool, compiled: bool) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._users == 0 or self._deterministic == deterministic)
            self._users += 1
            if self._users > 1:
                if deterministic and compiled:
                    _set_deterministic(True, compiled=True)
                return
            self._deterministic = deterministic
            self._before = (
                torch.are_deterministic_algorithms_enabled(),
                torch.backends.cudnn.benchmark,
                deterministic_settings.fill_uninitialized_memory,  # type: ignore[attr-defined]
            )
            if deterministic:
                os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS refuses determinism without it
                _set_deterministic(True, compiled=compiled)
                deterministic_settings.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # we read none
            torch.backends.cudnn.benchmark = not deterministic

    def release(self) -> None:
        with self._changed:
            self._users -= 1
            if self._users == 0:
                algorithms, benchmark, fill = self._before
                _set_deterministic(algorithms)
                torch.backends.cudnn.benchmark = benchmark
                deterministic_settings.fill_uninitialized_memory = fill  # type: ignore[attr-defined]
            self._changed.notify_all()


_switches = _Switches()


@contextmanager
def reproducible(*, deterministic: bool, compiled: bool = False) -> Iterator[None]:
    """Inside: torch's deterministic algorithms if asked. compiled: true where torch's compiler is used inside."""
    _switches.acquire(deterministic, compiled)
    try:
        yield
    finally:
        _switches.release()


def draws(model: nn.Module) -> bool:
    """True if a layer draws random numbers while it trains: dropout of any kind."""
    names = {type(module).__name__.lower() for module in model.modules()}
    return any(word in name for name in names for word in ("drop", "stochastic", "rrelu"))


@contextmanager
def random_state_of(model: nn.Module, device: torch.device) -> Iterator[bool]:
    """Inside, a model whose layers draw has torch's random state for itself; yields whether it has any such layer.

    The state is as before afterwards. Other threads that draw, or build models, wait.
    """
    if not draws(model):
        yield False
        return
    gpus = [device] if device.type == "cuda" else []
    with private_random_state(None), torch.random.fork_rng(devices=gpus):
        yield True


def seed_layers(seed: int, device: torch.device) -> None:
    """Seed what layers such as dropout draw from; only inside `random_state_of`."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
