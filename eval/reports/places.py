"""Paths as they may leave the machine: relative to here, or the last name alone."""

import re
import shlex
from pathlib import Path

ABSOLUTE = re.compile(r"(?<![\w./~<-])~?/(?:[^\s/'\",;=+]+/)*([^\s/'\",;=+]+)/?")


def without_places(text: str) -> str:
    """Return a text in which no path tells where on a machine it lies.

    >>> without_places("out=/srv/jane/runs/a was scored by http://localhost:8000/v1")
    'out=a was scored by http://localhost:8000/v1'
    """
    here = Path.cwd()
    for known in (here, *here.parents[:-1], Path.home()):  # which may hold blanks
        text = text.replace(f"{known}/", "") if known != known.parent else text
    return ABSOLUTE.sub(r"\1", text)


def argument(text: str) -> str:
    """Return an argument, which may be a path or NAME=PATH, without its place; a path may hold blanks.

    >>> argument("rte=/srv/jane/my runs/a")
    'rte=a'
    """
    name, equals, path = text.rpartition("=")
    here = path.removeprefix(f"{Path.cwd()}/")
    return (
        f"{name}{equals}{Path(here).name}"
        if Path(here).is_absolute()
        else without_places(f"{name}{equals}{here}")
    )


def command_line(text: str) -> str:
    """Return a command without the places in its arguments."""
    try:
        return shlex.join(map(argument, shlex.split(text)))
    except ValueError:  # an open quote: no command of ours
        return without_places(text)
