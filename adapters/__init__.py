"""Exact arithmetic on LoRA adapters, without loading their base model."""

from tuneyard.core.installation.start import check_name

check_name(__name__)
