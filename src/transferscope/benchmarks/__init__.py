"""Speed of this package on one GPU, or on the CPU: `python -m transferscope.benchmarks.gpu`."""
