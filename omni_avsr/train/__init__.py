"""Training a model: the step of every method, the data, checkpoints and resuming."""
