"""tuneyard data COMMAND: compile raw files into datasets that LLaMA-Factory reads."""

from tuneyard.compiler.cli import cli
from tuneyard.core.cli.run import run_command

run_command(cli)
