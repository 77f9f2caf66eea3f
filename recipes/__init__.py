"""Check, plan, run and resume training recipes, which are ordinary LLaMA-Factory YAML."""

from tuneyard.core.installation.start import check_name

check_name(__name__)
