"""Raw files become datasets that LLaMA-Factory reads, every row accounted for."""

from tuneyard.core.installation.start import check_name

COMMAND_GROUP = "data"
"""`python -m compiler` is `tuneyard data`."""

check_name(__name__)
