"""Trainings as files that LLaMA-Factory takes as they are: checked, planned, launched, resumed."""

from tuneyard import core as core  # first: it says in one sentence which package is not installed
