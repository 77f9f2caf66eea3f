"""Scoring models and comparing what they answered: one file here is one command (design §5)."""

from tuneyard import core as core  # first: it says in one sentence which package is not installed
