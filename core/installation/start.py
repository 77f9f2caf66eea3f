"""Starts a command. What this machine lacks is one line and exit code 2: no import below exits or prints."""

import importlib
import signal
import sys
from importlib.util import find_spec
from typing import NoReturn

from tuneyard.core.installation.packages import missing
from tuneyard.core.language.message import _


def start(module: str, name: str = "cli") -> NoReturn:
    """Import a Click command and run it, as `python -m PACKAGE` and the script `tuneyard` do.

    Ctrl-C during the imports ends the process as SIGTERM does, without a traceback.
    """
    if sys.platform == "win32":  # no fcntl, no fork, no make
        _refuse("Tuneyard does not run on native Windows, but in WSL: `wsl --install`, then make setup there")
    if sys.version_info < (3, 11):  # noqa: UP036  # an older Python gets a message, not a traceback
        version_here = ".".join(map(str, sys.version_info[:2]))
        _refuse("Tuneyard needs Python 3.11 or newer, found " + version_here + "; run make setup")
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:  # a script's background jobs ignore it
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        runner = importlib.import_module("tuneyard.core.cli.run")
        command = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        if not error.name or error.name.partition(".")[0] == "tuneyard":
            raise  # a module of ours: a defect, not a missing package
        _refuse(missing(error.name))
    signal.signal(signal.SIGINT, handler)
    sys.exit(runner.run_command(command))


def check_name(package: str) -> None:
    """Take `python -m eval.nli`, and refuse `import eval` in place of `import tuneyard.eval` (`ImportError`).

    Two names of a package are two modules with two classes of each name: an error of one is none of the
    other. Python imports the packages of `python -m` while `sys.argv[0]` is "-m". A worker that it
    spawns for such a command imports them again.
    """
    if package.startswith("tuneyard.") or _is_worker():
        return
    if sys.argv[:1] != ["-m"]:
        raise ImportError(
            _(
                "import tuneyard.{package}: `{package}` is its folder (CONTRIBUTING.md, One name)",
                package=package,
            )
        )
    if find_spec("click") is None:  # the first that a command imports
        _refuse(missing("click"))


def _is_worker() -> bool:
    """True in a process that `multiprocessing` has started: its own command line says so."""
    return any("multiprocessing" in word for word in sys.orig_argv)


def _refuse(message: str) -> NoReturn:
    sys.stderr.write("error: " + message + "\n")
    sys.exit(2)
