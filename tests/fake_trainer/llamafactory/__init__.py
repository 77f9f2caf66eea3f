"""A stand-in for LLaMA-Factory that trains nothing, for the tests of sweeps."""
