"""Runs a command, and turns errors into messages and exit codes."""

import contextlib
import errno
import importlib
import os
import re
import select
import signal
import sys
import threading
from itertools import pairwise
from operator import methodcaller
from pathlib import Path
from types import FrameType, TracebackType
from typing import NoReturn

import click

from tuneyard.core.cli.click_errors import click_lines
from tuneyard.core.errors import TERMINATED, ContentError, RequestError, TuneyardError, describe_os_error
from tuneyard.core.installation.packages import missing, set_up_command
from tuneyard.core.language.message import _, joined, marked, message_of, tr, translated
from tuneyard.core.language.messages import say
from tuneyard.core.text.terminal import guarded_output

LONGEST_LINE = 5000  # characters of a message
_REPEATABLE = ("--adapter", "--data", "--dataset", "--source")
_NO_NUMBER = "(?:: expected a number|, expected a number| is not a valid float)"
_NO_SHARE = r"(?:\.0)?(?:, expected .* 1 or less| is not in the range 0<.*<=?1\.)"
_SLIPS = {
    rf"""["'](?P<whole>\d+),(?P<digits>\d[\de-]*)["']{_NO_NUMBER}""": marked(
        "write a decimal point, not a comma: {whole}.{digits}"
    ),
    rf"""["'](?P<number>\d+)%["']{_NO_NUMBER}""": marked(
        "write a share of 1, such as 0.5 for 50 %; {number} alone if it counts in points"
    ),
    rf"(?<![\d.])\d+{_NO_SHARE}": marked("write a share of 1, such as 0.5 for 50 %"),
    r"'\d\d[/:](?P<percent>\d\d)' is not a valid float": marked("write the share alone: 0.{percent}"),
    r"'(?P<thousands>\d+)(?:[kK]|[,.]000)' is not a valid integer": marked(
        "write the digits alone: {thousands}000"
    ),
}
"""What to write in place of a number, by the message that refuses it."""
_EMPTY_PATHS = {(word, "") for word in ("--out", "--dataset-dir", "check", "plan", "train")}
_OF_HELP = {"-h", "--help", "--version"}
_EMPTY = re.compile("|[=:].+|.+=")
"""A word that an empty variable of the shell leaves: `$A`, `$A=0.5`, `base=$A`."""
_SEVERAL = re.compile(r"(?:,|(?<=\d)\+)(?=[^\W\d]|[./])")
"""What stands between several names in one word: `a,b`, `a=0.5,b=0.5`, `a:0.5+b:0.5`."""
_TYPOGRAPHIC = re.compile("^[–—−]|(^|=)[“”„«‘’]")
"""A dash or a quote that a text editor has put in place of the plain one."""
_OF_RUST = "pyo3_runtime"
"""Module of the exception that tokenizers and safetensors raise where their code panics."""
_terminated = threading.Event()
# Click reads --max_new_tokens, the spelling of argparse scripts, as --max-new-tokens.
CLI: dict[str, object] = {
    "token_normalize_func": methodcaller("replace", "_", "-"),
    "help_option_names": ["-h", "--help"],
    "max_content_width": 110,
}


def run_command(command: click.Command) -> NoReturn:
    """Run a Click command and exit with its code. A user's mistake prints one message, no traceback."""
    with guarded_output():
        _run(command)


def _run(command: click.Command) -> NoReturn:
    signal.signal(signal.SIGTERM, _terminate)
    # No bars in files and pipes. tqdm reads it at import, also in subprocesses. A closed stream is None.
    if sys.stderr is None or not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")
    try:
        code = _exit_code(command)
        if sys.stdout:  # None if the parent process closed it
            sys.stdout.flush()
    except OSError as error:
        if error.errno == errno.EPIPE and _reader_is_gone():
            for stream in (1, 2):  # drops the buffers, so that Python's exit does not fail on them
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
            sys.exit(141)
        say(_("error: {message}", message=describe_os_error(error)), to_stderr=True)
        code = 2
    sys.exit(code)


def _check_current_folder() -> None:
    """`RequestError` if the current folder was deleted: all relative paths need it. Help needs no folder."""
    if not _OF_HELP.isdisjoint(sys.argv):
        return
    try:
        Path.cwd()
    except FileNotFoundError:
        folder = os.environ.get("PWD", ".")
        raise RequestError(
            _("{path}: the current folder was deleted; go to one that exists: cd FOLDER", path=folder)
        ) from None


def _terminate(_number: int, _frame: FrameType | None) -> NoReturn:
    _terminated.set()
    raise KeyboardInterrupt


def _of_module(command: click.Command, module: str) -> tuple[click.Command, str | None]:
    """The command of `python -m eval.nli` from the module under its own name, and `tuneyard eval nli`.

    Worker processes import the classes of its objects, and cannot import them from `__main__`.
    """
    name = module.removesuffix(".__main__").removeprefix("tuneyard.")
    package, *commands = name.split(".")
    if package == "tuneyard":
        return command, package
    group = _group_of(package)
    if group is None:
        return command, None
    callback = command.callback
    if commands and callback is not None and callback.__module__ == "__main__":
        own_name = module.removeprefix("tuneyard.")
        command = getattr(importlib.import_module(f"tuneyard.{own_name}"), callback.__name__)
    return command, " ".join(["tuneyard", group, *commands])


def _group_of(package: str) -> str | None:
    """The group of `tuneyard` that one of its packages declares; None for any other package."""
    name = f"tuneyard.{package}"
    try:
        group = getattr(importlib.import_module(name), "COMMAND_GROUP", None)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        return None
    return group if isinstance(group, str) else None


def _exit_code(command: click.Command) -> int:
    spec = sys.modules["__main__"].__spec__
    program = None  # Click takes the script's name
    try:
        _check_current_folder()
        if not _EMPTY_PATHS.isdisjoint(pairwise(sys.argv)):
            raise click.UsageError(_("a path is empty"))
        if spec is not None:
            command, program = _of_module(command, spec.name)
        with _PanicsOfRust():
            code = command.main(prog_name=program, standalone_mode=False)
    except (click.Abort, KeyboardInterrupt) as error:
        return _interrupted(message_of(error))
    except click.ClickException as error:
        say(joined(click_lines(error, _slip(error.message)), "\n"), to_stderr=True)
        return 2
    except TuneyardError as error:
        text = _with_short_lines(translated(error.message))
        lines = [_("error: {message}", message=text), *_slip(str(error))]
        say(joined(lines, "\n"), to_stderr=True)
        return error.exit_code
    except ImportError as error:
        if not error.name or error.name.partition(".")[0] == "tuneyard":
            raise  # a module of ours: a defect, not a missing package
        message: str = _("{reason}; run {command} again", reason=error, command=set_up_command())
        if isinstance(error, ModuleNotFoundError):
            message = missing(error.name)
        say(_("error: {message}", message=message), to_stderr=True)
        return 2
    except RuntimeError as error:
        cause = error.__context__
        if isinstance(cause, OSError) and cause.errno == errno.ELOOP:  # of Path.resolve
            raise cause from None
        # Python 3.11 makes one of a signal that comes while it makes a class or starts a thread.
        if not isinstance(cause, KeyboardInterrupt):
            raise
        return _interrupted()
    except SystemExit:
        if type(sys.stdout).__name__ == "_PacifyFlushWrapper":  # Click exits this way at any broken pipe
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)) from None
        raise
    if isinstance(code, int):
        return code
    return 0


class _PanicsOfRust(contextlib.AbstractContextManager[None]):
    """Turns a panic of tokenizers or safetensors into a `ContentError`: its class cannot be imported."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _unused: TracebackType | None
    ) -> None:
        if kind is not None and kind.__module__ == _OF_RUST:
            raise ContentError(
                _("the library of tokenizers stopped: {error}; take the model's files again", error=error)
            ) from error


def _with_short_lines(message: str) -> str:
    """A message whose lines are cut at `LONGEST_LINE`: a file may have 100,000 columns, which one lists."""
    lines = message.split("\n")
    for number, line in enumerate(lines):
        if len(line) > LONGEST_LINE:
            lines[number] = tr(
                "{begin}… ({number:,} characters)", begin=line[:LONGEST_LINE], number=len(line)
            )
    return "\n".join(lines)


def _interrupted(how_to_resume: str = "") -> int:
    """Print how a command goes on that Ctrl-C or SIGTERM has ended; return the exit code of that signal."""
    hint = how_to_resume or _("the same command starts again")
    say(_("interrupted; {hint}", hint=hint), to_stderr=True)
    if _terminated.is_set():
        return TERMINATED
    return 130


def _slip(message: str) -> list[str]:
    """The line on a slip in the refused number or in the words of the command line, if there is one."""
    for pattern, fix in _SLIPS.items():
        number = re.search(pattern, message)
        if number:
            return [_(fix, **number.groupdict())]
    for word, following in pairwise(sys.argv):
        path = f"{word} {following}"
        if os.path.exists(path):  # noqa: PTH110  # Path.exists raises for a name that is too long
            return [_('put a path with spaces in quotes: "{path}"', path=path)]
        if _TYPOGRAPHIC.search(following):
            return [
                _(
                    "{word}: a text editor's dash or quote; type two hyphens (--) or a plain quote (')",
                    word=following,
                )
            ]
        if _EMPTY.fullmatch(following):
            return [_("{option} {word!r}: is a variable of your shell empty?", option=word, word=following)]
        if "recipe" in sys.argv:  # whose settings have commas
            continue
        if word in _REPEATABLE and "," in following:
            options = f"{word} {following.replace(',', f' {word} ')}"
            return [_("give each a {option} of its own: {options}", option=word, options=options)]
        if {word[:1], following[0]}.isdisjoint("-") and _SEVERAL.search(following):
            return [_("put a space between them: {words}", words=_SEVERAL.sub(" ", following))]
    return []


def _reader_is_gone() -> bool:
    """True if the reader of our output is gone (`… | head`): poll(2) then reports an error of the pipe."""
    poll = select.poll()
    for stream in (1, 2):
        poll.register(stream, 0)
    return any(event & select.POLLERR for _unused, event in poll.poll(0))


# Click takes "" as the current folder.
