"""`tuneyard adapter …` in this process."""

from tests.cli.scoring import invoke
from tuneyard.adapters.__main__ import cli
from tuneyard.core.errors import TuneyardError


def call(*words, code=0):
    """Run a command, check the exit code that `run` would give; return (stdout, stderr and message)."""
    result = invoke(cli, *words, standalone_mode=False)
    error = result.exception
    if error is None:
        found = 0
    elif isinstance(error, TuneyardError):
        found = error.exit_code
    elif isinstance(error, OSError) or type(error).__module__.startswith("click"):
        found = 2
    else:
        raise error
    assert found == code, f"{error}\n{result.output}"
    return result.stdout, f"{result.stderr}{error or ''}"
