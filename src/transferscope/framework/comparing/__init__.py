"""`kedro compare`: checkpoint files, as they are recognised, as a study that takes them in and trains nothing."""
