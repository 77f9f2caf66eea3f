"""python -m eval.prove runs `tuneyard eval prove`."""

from tuneyard.core.errors import run_command
from tuneyard.eval.prove.command import cli

if __name__ == "__main__":
    run_command(cli)
