"""Paths on a page that may leave the machine: relative to the working folder, or the last name alone."""

import re
import shlex
from pathlib import Path

ABSOLUTE = re.compile(r"(?<![\w./~<-])~?/(?:[^\s/'\",;=+]+/)*([^\s/'\",;=+]+)/?")


def without_places(text: str) -> str:
    """Shorten the absolute paths in a text to relative paths or last names.

    >>> without_places("out=/srv/jane/runs/a was scored by http://localhost:8000/v1")
    'out=a was scored by http://localhost:8000/v1'
    """
    here = Path.cwd()
    for folder in (here, *here.parents[:-1], Path.home()):  # whose names may contain blanks
        if folder != folder.parent:
            text = text.replace(f"{folder}/", "")
    return ABSOLUTE.sub(r"\1", text)


def argument(text: str) -> str:
    """Shorten an argument that is a path or NAME=PATH; the path may contain blanks.

    >>> argument("rte=/srv/jane/my runs/a")
    'rte=a'
    """
    name, equals, path = text.rpartition("=")
    here = path.removeprefix(f"{Path.cwd()}/")
    if Path(here).is_absolute():
        return f"{name}{equals}{Path(here).name}"
    return without_places(f"{name}{equals}{here}")


def command_line(text: str) -> str:
    """Shorten the paths in the arguments of a command."""
    try:
        return shlex.join(map(argument, shlex.split(text)))
    except ValueError:  # an open quote: no command of ours
        return without_places(text)
