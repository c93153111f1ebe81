"""The analyses: mathematics on tensors, state_dicts, modules and callables; one idea a file."""
