"""Paths on a page that may leave the machine: relative to the working folder, or the last name alone."""

import re
import shlex
from pathlib import Path

from tuneyard.core.language.messages import relative_paths

NAME = r"[^\s/'\",;=+]+"


def without_places(text: str) -> str:
    """Shorten the absolute paths in a text: below the working folder to relative paths, others to last names.

    The names of the working folder, its parents and the home folder may contain blanks.

    >>> without_places("out=/srv/jane/runs/a was scored by http://localhost:8000/v1")
    'out=a was scored by http://localhost:8000/v1'
    """
    folders = {str(folder) for folder in (*Path.cwd().parents, Path.home()) if folder != folder.parent}
    known = "|".join(re.escape(folder) for folder in sorted(folders, key=len, reverse=True))
    absolute = rf"(?<![\w./~<-])(?:{known}|~)?/(?:{NAME}/)*(?P<last>{NAME})/?"
    return re.sub(absolute, r"\g<last>", relative_paths(text))


def argument(text: str) -> str:
    """Shorten an argument that is a path or NAME=PATH; the path may contain blanks.

    >>> argument("rte=/srv/jane/my runs/a")
    'rte=a'
    """
    name, equals, path = text.rpartition("=")
    here = relative_paths(path)
    if Path(here).is_absolute():
        return f"{name}{equals}{Path(here).name}"
    return without_places(f"{name}{equals}{here}")


def command_line(text: str) -> str:
    """Shorten the paths in the arguments of a command."""
    try:
        return shlex.join(map(argument, shlex.split(text)))
    except ValueError:  # an open quote: no command of ours
        return without_places(text)
