"""Score models and compare their answers. Each file in this folder is one command (design §5)."""

from tuneyard import core as core  # first: it says in one sentence which package is not installed
