"""Exact arithmetic on LoRA adapters, without loading their base model."""

from tuneyard import core as core  # first: it says in one sentence which package is not installed
