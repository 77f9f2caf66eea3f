"""User-facing errors, the time limit for code from users, and the wrapper that turns errors into exit codes.

Exit codes: 0 clean, 1 wrong content of data, recipe, adapter or registry (or a subprocess failed),
2 wrong request, 130/143 interrupted, 141 closed pipe.
"""

import contextlib
import errno
import importlib
import io
import json
import os
import re
import select
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice, pairwise
from operator import methodcaller
from pathlib import Path
from types import FrameType
from typing import NoReturn

import click

from tuneyard.core.errors.problem_codes import guide
from tuneyard.core.installation.packages import missing, set_up_command
from tuneyard.core.language.messages import relative_paths, say
from tuneyard.core.terminal import UNSEEN, guarded_output

SHOWN = 20
LONGEST_LINE = 5000  # characters of a message
LONGEST_NAME = 200  # characters of a name that is compared with others
MOST_CHOICES = 10_000
TIME_LIMIT = 5.0  # seconds of CPU time for code of a user
TERMINATED = 128 + signal.SIGTERM  # exit code
GROUPS_OF_PACKAGES = {"compiler": "data", "recipes": "recipe", "adapters": "adapter", "eval": "eval"}
"""The group of `tuneyard` that a package has: `python -m compiler` is `tuneyard data`."""
OS_FIXES = {
    errno.ENOSPC: "free some space, or write to another disk (temporary files: TMPDIR)",
    errno.EDQUOT: "free some space, or write to another disk",
    errno.EROFS: "write to a folder that is yours",
    errno.EACCES: "name a file or folder that is yours",
    errno.EPERM: "name a file or folder that is yours",
    errno.EISDIR: "name a file in it",
    errno.ELOOP: "remove these links, or name another path",
}
_LINE_ENDS = re.compile(f"[\x00-\x08\x0a-\x1f\u2028\u2029{UNSEEN}]")
_OTHER_TOOLS = {
    "--model-name-or-path": " Here it is --model.",
    "-m": " Here it is --model.",
    "--model-args": " Here each is an option: --model DIR --dtype bf16.",
    "--adapter-name-or-path": " Here it is --adapter.",
    "--peft": " Here it is --adapter.",
    "--eval-dataset": " Here it is --dataset.",
    "--tasks": " Here it is --dataset.",
    "--num-fewshot": " Here it is --shots.",
    "--batch-size": " Here it is --batch-tokens, the tokens in a batch.",
    "--device": " A GPU is used if there is one; CUDA_VISIBLE_DEVICES chooses it.",
    "--temperature": " Answers are greedy; --preset document samples them.",
    "--gpu-memory-utilization": " Add it to the command that --dry-run prints.",
    "--max-model-len": " Add it to the command that --dry-run prints.",
    "ollama": " For Ollama: tuneyard adapter export NAME --to ollama.",
    "bfloat16": " Here it is bf16.",
    "float32": " Here it is fp32.",
    "--weights": " A weight follows its adapter: demo-rte=0.5.",
    "--output-dir": " Here it is --out.",
    "--output-path": " Here it is --out.",
    "--steps": " A setting of a recipe has no dashes: max_steps=20.",
    "--gpus": " Here it is --for 2xA100-80.",
    "--max-steps": " A setting of a recipe has no dashes: max_steps=20.",
    "--learning-rate": " A setting of a recipe has no dashes: learning_rate=1e-4.",
    "--dry-run": " `data check`, `recipe check` and `recipe plan` only look.",
}
"""What to type in place of options and values that a command lacks: of LLaMA-Factory, lm-evaluation-harness
and vLLM, or of another command."""
_REPEATABLE = ("--adapter", "--data", "--dataset", "--source")
_NO_NUMBER = "(?:: expected a number|, expected a number| is not a valid float)"
_NO_SHARE = r"(?:\.0)?(?:, expected .* 1 or less| is not in the range 0<.*<=?1\.)"
_SLIPS = {
    rf"""["'](\d+),(\d[\de-]*)["']{_NO_NUMBER}""": r"write a decimal point, not a comma: \1.\2",
    rf"""["'](\d+)%["']{_NO_NUMBER}""": (
        r"write a share of 1, such as 0.5 for 50 %; \1 alone if it counts in points"
    ),
    rf"(?<![\d.])\d+{_NO_SHARE}": "write a share of 1, such as 0.5 for 50 %",
    r"'(\d\d)[/:](\d\d)' is not a valid float": r"write the share alone: 0.\2",
    r"'(\d+)(?:[kK]|[,.]000)' is not a valid integer": r"write the digits alone: \g<1>000",
}
"""What to write in place of a number, by the message that refuses it."""
# Click takes "" as the current folder.
_OF_RUST = "pyo3_runtime"
"""Module of the exception that tokenizers and safetensors raise where their code panics."""
_EMPTY_PATHS = {(word, "") for word in ("--out", "--dataset-dir", "check", "plan", "train")}
_OF_HELP = {"-h", "--help", "--version"}
_EMPTY = re.compile("|[=:].+|.+=")
"""A word that an empty variable of the shell leaves: `$A`, `$A=0.5`, `base=$A`."""
_SEVERAL = re.compile(r"(?:,|(?<=\d)\+)(?=[^\W\d]|[./])")
"""What stands between several names in one word: `a,b`, `a=0.5,b=0.5`, `a:0.5+b:0.5`."""
_TYPOGRAPHIC = re.compile("^[–—−]|(^|=)[“”„«‘’]")
"""A dash or a quote that a text editor has put in place of the plain one."""
_MISSING_PATH = re.compile(r"(?:File|Directory|Path) '(.+)' (?:does not exist|is a file)\.$")  # of Click
_terminated = threading.Event()
_JSON = json.JSONEncoder(ensure_ascii=False)  # `json.dumps` makes one at each call: rows may all be wrong


class TuneyardError(Exception):
    """Error that a user can fix. The message names the place, the value and the fix."""

    exit_code = 1

    def __reduce__(self) -> tuple[object, ...]:
        """Come back from a worker unchanged, also where its class has other arguments than `args`."""
        return Exception.__new__, (type(self), *self.args), self.__dict__


class ContentError(TuneyardError):
    """The content of data, recipe, adapter or registry is wrong, or a subprocess failed."""


class LimitError(ContentError):
    """Code of a file, such as a regular expression or a chat template, took too much time, memory or text."""


class RequestError(TuneyardError):
    """Wrong arguments, a missing path or dataset, no permission, a missing extra, no network."""

    exit_code = 2


def need(*modules: str) -> None:
    """Check that these modules are installed without importing them.

    `RequestError` names the first that is missing and the command that installs it.
    """
    for module in modules:
        if find_spec(module) is None:
            raise RequestError(missing(module))


class ResumableError(click.Abort):
    """Ctrl-C, or SIGTERM, in a command that can be resumed. `str()` is the sentence on how to resume it."""


@contextlib.contextmanager
def bounded(code: str) -> Iterator[None]:
    """Stop the block with `LimitError` after `TIME_LIMIT`. The message names the `code`.

    It is a regular expression of a user, such as `(a+)+b`: `re` lets signals through while it works, so a
    timer ends it. Blocks are not nested. Only the main thread gets signals: in another one the block runs
    without a bound. Templates have limits of their own: core/prompt/templates.py.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise LimitError(
            f"{code}: stopped after {TIME_LIMIT:g} s of computing; repeats inside repeats, such as (a+)+, "
            "can take for ever: write it without them"
        )

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, TIME_LIMIT)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


@contextlib.contextmanager
def resumed_by(describe: Callable[[], str]) -> Iterator[None]:
    """Print after Ctrl-C or SIGTERM how the work of this block, or of the decorated function, is resumed."""
    try:
        yield
    except KeyboardInterrupt as error:
        click.echo(err=True)  # after the terminal's ^C
        raise ResumableError(describe()) from error


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem, printed as one line: place, code, field, found, expected, fix.

    `place` is `file:line`, `file row N` or the like; codes are E… and W…, see docs/problems.md.
    """

    code: str
    place: str
    message: str
    field: str = ""
    hint: str = ""

    @property
    def is_error(self) -> bool:
        """True for an error, False for a warning or note."""
        return self.code.startswith("E")

    def line(self) -> str:
        """Format as `place: code field: message; hint`, the form of every printed problem."""
        field = f" {self.field}" if self.field else ""
        joint = " " if self.message.endswith("?") else "; "
        line = f"{self.place}: {self.code}{field}: {self.message}{joint}{self.hint}"
        return relative_paths(one_line(line.removesuffix(joint)))


class ProblemsError(ContentError):
    """All problems of one pass. `str()` shows the first 20, the total and the counts by code."""

    def __init__(self, problems: Iterable[Problem], subject: str) -> None:
        self.problems = list(problems)
        text = summarise(self.problems)
        names_subject = text.startswith((f"{subject}:", f"{subject} "))
        super().__init__(text if names_subject else f"{subject}: {text}")


def by_code(counts: Mapping[str, int]) -> str:
    """Numbers of problems, as `E101 2, W201 1`."""
    return ", ".join(f"{code} {count}" for code, count in sorted(counts.items()))


def summarise(
    problems: list[Problem], show_all: bool = False, counts: Mapping[str, int] | None = None
) -> str:
    """List problems, then the total with counts by code.

    Unless `show_all`, errors come first, there are 20 lines at most, and equal messages share one if need be.
    `counts` are given if `problems` is only the beginning of a longer list.
    """
    if counts is None:
        counts = Counter(problem.code for problem in problems)
    if not show_all:
        problems = sorted(problems, key=lambda problem: not problem.is_error)
    is_grouped = len(problems) > SHOWN and not show_all
    groups: dict[object, list[Problem]] = {}
    for number, problem in enumerate(problems):
        groups.setdefault(problem.message if is_grouped else number, []).append(problem)
    total = rest = sum(counts.values())
    lines = []
    for first, *others in list(groups.values())[: None if show_all else SHOWN]:
        more = f" (and {len(others)} more like it)" if others else ""
        lines.append(first.line() + more)
        rest -= 1 + len(others)
    if rest:
        lines.append(f"… {rest} more (--all shows every one)")
    lines.append(f"{counted(total, 'problem')} ({by_code(counts)})")
    lines += guide(counts)
    return "\n".join(lines)


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
        say(f"error: {describe_os_error(error)}", to_stderr=True)
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
            f"{folder}: the current folder was deleted; go to one that exists: cd FOLDER"
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
    if package not in GROUPS_OF_PACKAGES:
        return command, None
    callback = command.callback
    if commands and callback is not None and callback.__module__ == "__main__":
        command = getattr(importlib.import_module(f"tuneyard.{name}"), callback.__name__)
    return command, " ".join(["tuneyard", GROUPS_OF_PACKAGES[package], *commands])


def _exit_code(command: click.Command) -> int:
    spec = sys.modules["__main__"].__spec__
    program = None  # Click takes the script's name
    try:
        _check_current_folder()
        if not _EMPTY_PATHS.isdisjoint(pairwise(sys.argv)):
            raise click.UsageError("a path is empty")
        if spec is not None:
            command, program = _of_module(command, spec.name)
        code = command.main(prog_name=program, standalone_mode=False)
    except (click.Abort, KeyboardInterrupt) as error:
        return _interrupted(str(error))
    except click.ClickException as error:
        message_of_click = io.StringIO()
        error.show(message_of_click)
        hint = _slip(error.message) or _hint(error)
        say(message_of_click.getvalue().rstrip("\n") + hint, to_stderr=True)
        return 2
    except TuneyardError as error:
        say(f"error: {_with_short_lines(str(error))}{_slip(str(error))}", to_stderr=True)
        return error.exit_code
    except ImportError as error:
        if not error.name or error.name.partition(".")[0] == "tuneyard":
            raise  # a module of ours: a defect, not a missing package
        message = f"{error}; run {set_up_command()} again"
        if isinstance(error, ModuleNotFoundError):
            message = missing(error.name)
        say(f"error: {message}", to_stderr=True)
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
    except BaseException as error:
        if type(error).__module__ != _OF_RUST:
            raise
        say(
            f"error: the library of tokenizers stopped: {error}; take the model's files again",
            to_stderr=True,
        )
        return 1
    if isinstance(code, int):
        return code
    return 0


def _with_short_lines(message: str) -> str:
    """A message whose lines are cut at `LONGEST_LINE`: a file may have 100,000 columns, which one lists."""
    lines = message.split("\n")
    for number, line in enumerate(lines):
        if len(line) > LONGEST_LINE:
            lines[number] = f"{line[:LONGEST_LINE]}… ({len(line):,} characters)"
    return "\n".join(lines)


def _interrupted(how_to_resume: str = "") -> int:
    """Print how a command goes on that Ctrl-C or SIGTERM has ended; return the exit code of that signal."""
    say(f"interrupted; {how_to_resume or 'the same command starts again'}", to_stderr=True)
    if _terminated.is_set():
        return TERMINATED
    return 130


def _hint(error: click.ClickException) -> str:
    """The fix that Click's message lacks: a near file, where options belong, an example of the command."""
    if isinstance(error, click.NoSuchOption) and error.ctx and isinstance(error.ctx.command, click.Group):
        return f" Options come after the command: {error.ctx.command_path} COMMAND {error.option_name} …"
    hint = _OTHER_TOOLS.get("".join(error.message.split("'")[1:2]), "")
    if error.message.startswith("Got unexpected extra argument"):
        hint = "; see the usage above: quote a text with spaces, and give each further value its option again"
    missing_path = _MISSING_PATH.search(error.message)
    if missing_path:
        from tuneyard.core.files import near_name

        return f"\n{near_name(Path(missing_path[1]))}"
    if isinstance(error, click.UsageError) and error.ctx:
        for line in getattr(error.ctx.command, "examples", ()):
            if f" {error.ctx.info_name} " in line:
                return f"{hint}\nExample: {line}"
    return hint


def _slip(message: str) -> str:
    """A line on a slip in the refused number or in the words of the command line, "" without any."""
    for pattern, fix in _SLIPS.items():
        number = re.search(pattern, message)
        if number:
            return f"\n{number.expand(fix)}"
    for word, following in pairwise(sys.argv):
        path = f"{word} {following}"
        if os.path.exists(path):  # noqa: PTH110  # Path.exists raises for a name that is too long
            return f'\nput a path with spaces in quotes: "{path}"'
        if _TYPOGRAPHIC.search(following):
            return f"\n{following}: a text editor's dash or quote; type two hyphens (--) or a plain quote (')"
        if _EMPTY.fullmatch(following):
            return f"\n{word} {following!r}: is a variable of your shell empty?"
        if "recipe" in sys.argv:  # whose settings have commas
            continue
        if word in _REPEATABLE and "," in following:
            return f"\ngive each a {word} of its own: {word} {following.replace(',', f' {word} ')}"
        if {word[:1], following[0]}.isdisjoint("-") and _SEVERAL.search(following):
            return f"\nput a space between them: {_SEVERAL.sub(' ', following)}"
    return ""


def _reader_is_gone() -> bool:
    """True if the reader of our output is gone (`… | head`): poll(2) then reports an error of the pipe."""
    poll = select.poll()
    for stream in (1, 2):
        poll.register(stream, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def dangling(link: Path) -> str:
    """Words for a link that leads nowhere, e.g. `a link to /gone.csv, which does not exist`."""
    return f"a link to {link.readlink()}, which does not exist"


def describe_os_error(error: OSError) -> str:
    """Format an operating system error as `path: reason`, e.g. `out/x: No space left on device`."""
    reason = str(error.strerror or error)
    if error.errno in OS_FIXES:
        reason = f"{reason}: {OS_FIXES[error.errno]}"
    if error.filename:
        path = Path(error.filename)
        if error.errno == errno.ENOENT and path.is_symlink():
            reason = f"it is {dangling(path)}: remove it, or bring back what it leads to"
        return f"{error.filename}: {reason}"
    return reason


def show_value(value: object) -> str:
    """Format a value for a message: JSON (`null`, `true`, `"text"`), cut at 60 characters."""
    try:
        text = _JSON.encode(value)
    except TypeError:
        text = str(value)
    except (ValueError, RecursionError):  # more than 4300 digits, nested too deep
        text = f"a {type(value).__name__} too large to show"
    text = text.encode(errors="backslashreplace").decode()  # halves of characters cannot be encoded
    if len(text) > 60:
        return f"{text[:59]}…"
    return text


def show_values(values: Iterable[object]) -> str:
    """Format values for a message, each as `show_value` does, with commas between them."""
    return ", ".join(map(show_value, values))


def wrong_value(place: object, value: object, expected: str) -> ContentError:
    """The error for a value of another kind: `rows.jsonl:3: found "a", expected an object`."""
    return ContentError(f"{place}: found {show_value(value)}, expected {expected}")


def unexpected(place: object, field: str, value: object, expected: str) -> ContentError:
    """The error for a field of another kind: `rows.jsonl:3: row: found "a", expected a number`."""
    return wrong_value(f"{place}: {field}", value, expected)


def one_line(text: str) -> str:
    """Escape line breaks and control characters, which a file name may contain."""
    return _LINE_ENDS.sub(_escaped, text)


def _escaped(character: re.Match[str]) -> str:
    return character[0].encode("unicode_escape").decode()


def counted(number: int, noun: str) -> str:
    """Format a number with its noun: `1 error`, `2,000 errors`."""
    if number == 1:
        return f"1 {noun}"
    return f"{number:,} {noun}s"


def size_words(size: float) -> str:
    """Format bytes in the largest decimal unit that fits at least once: `3.6 MB`."""
    units = {"TB": 1e12, "GB": 1e9, "MB": 1e6, "kB": 1e3}
    for unit, scale in units.items():
        if size >= scale:
            return f"{size / scale:,.1f} {unit}"
    return counted(round(size), "byte")


def nearest_name(name: str, choices: Iterable[str]) -> str:
    """The choice nearest to `name` in any case, "" if none is similar.

    A choice that begins with `name` (adamw_torch, mine.yaml, accuracy) is nearer than one of similar letters.
    Of a file's many or long names the first short ones are compared: a comparison takes time.
    """
    import difflib

    if len(name) > LONGEST_NAME:
        return ""
    choices = islice((choice for choice in choices if len(choice) <= LONGEST_NAME), MOST_CHOICES)
    choice_by_lower = {choice.lower(): choice for choice in choices}
    name = name.lower()
    close = [choice for choice in choice_by_lower if choice.startswith(name) and len(name) > 1]
    if not close:
        close = difflib.get_close_matches(name, choice_by_lower, n=1, cutoff=0.66)
    return choice_by_lower.get(next(iter(close), ""), "")


def nearest(name: str, choices: Iterable[str], otherwise: str = "") -> str:
    """Suggest the choice nearest to `name` as `did you mean "x"?`, or `otherwise` if none is similar."""
    near = nearest_name(name, choices)
    return f'did you mean "{near}"?' if near else otherwise
