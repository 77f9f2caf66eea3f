"""Every command leaves through one door: exit codes, one message, no traceback."""

import contextlib
import importlib
import os
import pty
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from tests.cli.scoring import call, invoke
from tests.conftest import ROOT
from tests.messages import printed, raises
from tuneyard.core.cli.run import CLI, run_command
from tuneyard.core.errors import (
    ContentError,
    Problem,
    ProblemsError,
    RequestError,
    ResumableError,
    show_value,
    summarise,
)
from tuneyard.core.language.messages import one_command, warn_once


def outcome(error: BaseException | None) -> int:
    @click.command(context_settings=CLI)
    def command() -> None:
        if error:
            raise error

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["command"])
        for stream in ("stdout", "stderr"):  # Click puts others there at a broken pipe
            patch.setattr(sys, stream, getattr(sys, stream))
        with pytest.raises(SystemExit) as left:
            run_command(command)
    return int(left.value.code or 0)


def test_a_closed_stderr_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    assert outcome(None) == 0


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (None, 0, ""),
        (ContentError("row 7 is wrong"), 1, "error: row 7 is wrong\n"),
        (RequestError("no such set"), 2, "error: no such set\n"),
        (
            PermissionError(13, "Permission denied", "out"),
            2,
            "error: out: Permission denied: name a file or folder that is yours\n",
        ),
        (
            OSError(28, "No space left on device", "out/a"),
            2,
            "error: out/a: No space left on device: free some space, or write to another disk "
            "(temporary files: TMPDIR)\n",
        ),
        (KeyboardInterrupt(), 130, "\ninterrupted; the same command starts again\n"),
        (ResumableError("resume it with: x --resume"), 130, "interrupted; resume it with: x --resume\n"),
        # A program that we wrote to is gone; whoever reads our own output is not.
        (BrokenPipeError(32, "Broken pipe"), 2, "error: Broken pipe\n"),
    ],
)
def test_exit_codes(
    capsys: pytest.CaptureFixture[str], error: BaseException | None, code: int, said: str
) -> None:
    assert outcome(error) == code
    assert capsys.readouterr().err == said


def make_a_class() -> None:
    class Interrupted:
        def __set_name__(self, owner: type, name: str) -> None:
            raise KeyboardInterrupt

    type("Made", (), {"field": Interrupted()})


def wait_for_a_thread() -> None:
    """As threading.Condition.wait, which a signal stops before it has its lock again."""
    lock = threading.Lock()
    with lock:
        lock.release()
        raise KeyboardInterrupt


@pytest.mark.parametrize("interrupted", [make_a_class, wait_for_a_thread])
def test_an_interrupt_that_python_makes_another_error_is_one(
    capsys: pytest.CaptureFixture[str], interrupted: Callable[[], None]
) -> None:
    with pytest.raises((RuntimeError, KeyboardInterrupt)) as caught:
        interrupted()
    assert outcome(caught.value) == 130
    assert capsys.readouterr().err.endswith("interrupted; the same command starts again\n")


def test_a_loop_of_links_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises((RuntimeError, OSError)) as caught:
        (tmp_path / "loop").resolve().stat()
    assert outcome(caught.value) == 2
    assert "loop: Too many levels" in capsys.readouterr().err


def test_a_package_that_is_not_there_is_named_and_a_module_of_ours_is_a_defect(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert outcome(ModuleNotFoundError("No module named 'tqdm'", name="tqdm")) == 2
    assert capsys.readouterr().err.startswith("error: tqdm is not installed in ")
    assert outcome(ImportError("cannot import name 'a' from 'tqdm'", name="tqdm")) == 2
    printed(capsys.readouterr().err, "cannot import name 'a' from 'tqdm'", "make setup")
    for name in ("tuneyard.core.nothing", None):
        with pytest.raises(ImportError, match="nothing here"):
            outcome(ImportError("nothing here", name=name))


def test_underscores_are_taken_for_hyphens() -> None:
    @click.command(context_settings=CLI)
    @click.option("--max-new-tokens", type=int)
    def command(max_new_tokens: int) -> None:
        click.echo(max_new_tokens)

    assert invoke(command, "--max_new_tokens", "512").output == "512\n"


@pytest.mark.parametrize(
    ("raised", "way"), [("", "x --resume"), ("RuntimeError('lock')", "the same command starts again")]
)
def test_sigterm_is_143_runs_the_clean_up_and_says_how_to_go_on(raised, way) -> None:
    """Threading makes a RuntimeError of what the handler of a signal raises."""
    library = f"    except KeyboardInterrupt: raise {raised}\n"
    script = (
        "import click, time\n"
        "from tuneyard.core.cli.run import run_command\n"
        "from tuneyard.core.errors import resumed_by\n"
        "@click.command()\n"
        "@resumed_by(lambda: 'x --resume')\n"
        "def c():\n"
        "    try: print('ready', flush=True); time.sleep(60)\n"
        f"{library}"
        "    finally: print('cleaned', flush=True)\n"
        "run_command(c)"
    )
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, "-c", script], stdout=pipe, stderr=pipe, text=True, cwd=ROOT)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.05)
    os.kill(process.pid, signal.SIGTERM)
    said, errors = process.communicate()
    assert (said, errors.strip(), process.returncode) == ("cleaned\n", f"interrupted; {way}", 143)


def test_ctrl_c_during_the_first_imports_prints_no_traceback(tmp_path) -> None:
    (tmp_path / "click.py").write_text("import os; os.kill(os.getpid(), 2)")
    command = [sys.executable, "-m", "tuneyard"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, b"")


def test_a_problem_is_one_line() -> None:
    problem = Problem("E104", "raw/train.tsv:381", 'found "7", expected one of 0, 1', "label", "map it")
    assert problem.line() == 'raw/train.tsv:381: E104 label: found "7", expected one of 0, 1; map it'
    assert (
        Problem("E320", "r:1", 'did you mean "a"?', hint="run b").line()
        == 'r:1: E320: did you mean "a"? run b'
    )


def test_twenty_problems_are_shown_and_all_are_counted() -> None:
    problems = [Problem("W1" if n % 2 else "E2", f"a:{n}", f"wrong {n}") for n in range(25)]
    text = summarise(problems).splitlines()
    assert text[19:] == [
        "a:13: W1: wrong 13",
        "… 5 more (--all shows every one)",
        "25 problems (E2 13, W1 12)",
    ]
    assert len(summarise(problems, show_all=True).splitlines()) == 26
    assert str(ProblemsError(problems[:1], "set")).endswith("1 problem (E2 1)")


def test_equal_messages_of_many_problems_are_on_one_line() -> None:
    problems = [Problem("E1", f"a:{n}", "no such label" if n else "empty") for n in range(30)]
    text = summarise(problems, counts={"E1": 40}).splitlines()
    assert text[:2] == ["a:0: E1: empty", "a:1: E1: no such label (and 28 more like it)"]
    assert text[2:] == ["… 10 more (--all shows every one)", "40 problems (E1 40)"]


def test_problems_name_their_file_once() -> None:
    problem = Problem("E302", "r.yaml:2", "wrong", "lora_rank")
    assert str(ProblemsError([problem], "r.yaml")).startswith("r.yaml:2: E302 lora_rank")
    override = Problem("E302", "r.yaml (override)", "wrong", "lora_rank")
    assert str(ProblemsError([override], "r.yaml")).startswith("r.yaml (override): E302")
    assert str(ProblemsError([problem], "demo")).startswith("demo: r.yaml:2: E302")


@pytest.mark.parametrize(
    ("value", "shown"), [(None, "null"), (True, "true"), ("é", '"é"'), ("x" * 90, '"' + "x" * 58 + "…")]
)
def test_values_are_shown_as_json_and_cut(value: object, shown: str) -> None:
    assert show_value(value) == shown


@pytest.mark.parametrize("terminal", [False, True])
def test_bars_are_drawn_on_a_terminal_only(terminal: bool) -> None:
    code = (
        "import click\nfrom tuneyard.core.cli.run import run_command\n@click.command()\ndef slow():\n"
        "    from tqdm import tqdm\n    list(tqdm(range(3), mininterval=0))\nrun_command(slow)"
    )
    here, there = pty.openpty() if terminal else os.pipe()
    if terminal:
        termios.tcsetwinsize(there, (24, 80))
    own = {name: value for name, value in os.environ.items() if name != "TQDM_DISABLE"}
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=own, stderr=there, check=True)
    os.set_blocking(here, False)
    drawn = b""
    with contextlib.suppress(BlockingIOError):
        while more := os.read(here, 10_000):
            drawn += more
    assert (b"3/3" in drawn) is terminal


@pytest.mark.parametrize(
    ("module", "name", "words"),
    [
        ("tuneyard.recipes.train.__main__", "command", ["r.yaml"]),
        ("tuneyard.recipes.sweep.__main__", "command", ["r.yaml", "lora_rank=4,8"]),
        ("tuneyard.adapters.__main__", "fuse", ["a", "--base", "b", "--out", "o"]),
    ],
)
def test_long_commands_say_how_they_resume(
    monkeypatch: pytest.MonkeyPatch, module: str, name: str, words: list[str]
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    for first_call in (
        "tuneyard.recipes.train.__main__.read_recipe",
        "tuneyard.recipes.sweep.__main__.parse_grid",
        "tuneyard.adapters.fuse.fuse.fuse_request",
    ):
        monkeypatch.setattr(first_call, interrupt)
    command = getattr(importlib.import_module(module), name)
    with raises(ResumableError):
        call(command, *words)


def test_a_warning_is_printed_once_in_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    with one_command():
        for text in ("one", "one", "another"):
            warn_once(text)
    assert capsys.readouterr().err == "warning: one\nwarning: another\n"
