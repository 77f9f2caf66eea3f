"""What a comparison is asked for."""

from dataclasses import dataclass
from pathlib import Path

from tuneyard.core.cli.main import NO_COMMAND_LINE, CommandLine
from tuneyard.core.training.metrics import ACCURACY

MOST_ERRORS = 2000  # incorrect examples on the page


@dataclass(frozen=True, slots=True)
class CompareRequest:
    """The values of a command line: results as `[NAME=]PATH`, and a field for each option."""

    results: tuple[str, ...]
    out: Path
    decide_on: str = ""
    metric: str = ACCURACY.name
    choose_on: str | None = None
    by: str = ""
    margin: float | None = None
    """Points."""
    replicates: tuple[str, ...] = ()
    errors: int = MOST_ERRORS
    title: str = ""
    force: bool = False
    command_line: CommandLine = NO_COMMAND_LINE
    """The command as the user typed it, for the page."""
