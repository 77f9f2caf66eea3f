"""Raw files become datasets that LLaMA-Factory reads, every row accounted for."""

from tuneyard import core as core  # first: it says in one sentence which package is not installed
