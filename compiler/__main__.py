"""python -m compiler COMMAND: compile raw files into datasets that LLaMA-Factory reads."""

from compiler.cli import cli
from core.errors import run

run(cli)
