"""SGD without torch's compiler, which torch's own loads before its first update."""

from __future__ import annotations

import inspect

import torch


class PlainSGD(torch.optim.SGD):
    """`torch.optim.SGD`, to the bit, whose methods do not load torch's compiler.

    Each of these is wrapped in torch, so that the compiler leaves it out of what it compiles, and the wrapper imports
    the compiler (`torch._dynamo`, and SymPy with it) even where nothing is compiled: 860 modules for each process that
    trains. Here stands what they wrap.
    """

    add_param_group = inspect.unwrap(torch.optim.SGD.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.SGD.zero_grad)
    state_dict = inspect.unwrap(torch.optim.SGD.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.SGD.load_state_dict)
    step = torch.no_grad()(inspect.unwrap(torch.optim.SGD.step))
