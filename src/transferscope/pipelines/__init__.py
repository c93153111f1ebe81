"""One folder a pipeline: thin nodes, and the wiring that follows from the plan."""
