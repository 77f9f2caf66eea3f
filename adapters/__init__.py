"""Exact arithmetic on LoRA adapters, without loading their base model."""

from tuneyard.core.installation.start import check_name

COMMAND_GROUP = "adapter"
"""`python -m adapters` is `tuneyard adapter`."""

check_name(__name__)
