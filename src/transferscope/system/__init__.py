"""Files, locks, processes, GPU grants, memory, progress, errors."""
