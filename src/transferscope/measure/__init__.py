"""Analyses applied to checkpoints and splits; usable without Kedro."""
