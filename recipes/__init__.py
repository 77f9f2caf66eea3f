"""Check, plan, run and resume training recipes, which are ordinary LLaMA-Factory YAML."""

from tuneyard import core as core  # first: it reports missing packages
