"""Check, plan, run and resume training recipes, which are ordinary LLaMA-Factory YAML."""

from tuneyard.core.installation.start import check_name

COMMAND_GROUP = "recipe"
"""`python -m recipes` is `tuneyard recipe`."""

check_name(__name__)
