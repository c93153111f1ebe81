"""The processes that train one model together, as the training loop sees them."""

from __future__ import annotations

from torch import Tensor, nn


class OneProcess:
    """A group of one: nothing to exchange. `worker.ProcessGroup` is the same for several processes."""

    rank = 0
    size = 1

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes files."""
        return self.rank == 0

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model, such that backward leaves in every process the mean over processes of the gradients."""
        return model

    def sum_(self, tensor: Tensor) -> Tensor:
        """Replace `tensor` by its sum over the processes."""
        return tensor

    def wait(self) -> None:
        """Return when every process has come here."""

    def share(self, num_examples: int) -> tuple[slice, float]:
        """This process's consecutive, even share of a global batch, and the factor of its loss.

        The factor is 1; but where there are fewer examples than processes, those left over compute the first example
        with the factor 0, since every process must take part in the exchange of gradients.
        """
        start, stop = (num_examples * rank // self.size for rank in (self.rank, self.rank + 1))
        return (slice(start, stop), 1.0) if start < stop else (slice(0, 1), 0.0)
