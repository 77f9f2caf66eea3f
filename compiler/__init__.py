"""Raw files become datasets that LLaMA-Factory reads, every row accounted for."""

from tuneyard.core.installation.start import check_name

check_name(__name__)
