"""Score models and compare their answers. Each file in this folder is one command (design §5)."""

from tuneyard.core.installation.start import check_name

COMMAND_GROUP = "eval"
"""`python -m eval` is `tuneyard eval`."""

check_name(__name__)
