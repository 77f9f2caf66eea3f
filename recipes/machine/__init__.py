"""The machine of a training: its GPUs, processes and precision."""
