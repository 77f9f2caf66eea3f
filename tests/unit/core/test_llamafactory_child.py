"""The process in which LLaMA-Factory answers, with packages of a few lines for it and for datasets."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from pathlib import Path

import pytest

from tests import llamafactory_questions as questions
from tests.conftest import ROOT
from tests.llamafactory_questions import stand_in
from tests.messages import raises
from tests.processes import alive, wait_for_end, wait_until, written
from tuneyard.core.errors import ContentError
from tuneyard.core.language.message import Message
from tuneyard.core.llamafactory import child as child_module
from tuneyard.core.llamafactory import client
from tuneyard.core.llamafactory.client import LlamaFactoryChild

SLOW_IMPORT = "import pathlib, time; pathlib.Path({path!r}).write_text('importing'); time.sleep(600)"
IGNORES_CHILDREN = (
    'exec "$1" -c "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); '
    'os.execv(sys.argv[1], sys.argv[1:])"'
)
"""Starts a program as some schedulers do, which ignore the signals of their children."""
SCRIPT = """
import os, pathlib, sys
from tests import llamafactory_questions as questions
from tuneyard.core.llamafactory import client
{body}
"""


@pytest.fixture(scope="module")
def stand_in_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stand_in(tmp_path_factory.mktemp("stand-in"))


@pytest.fixture(scope="module")
def started(stand_in_folder: Path) -> Iterator[LlamaFactoryChild]:
    """One child for the tests that leave it alive."""
    child = LlamaFactoryChild()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(stand_in_folder))
        child.ask(questions.echo, 1)
    yield child
    child.end()


@pytest.fixture
def child(
    started: LlamaFactoryChild, stand_in_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> LlamaFactoryChild:
    monkeypatch.setenv("PYTHONPATH", str(stand_in_folder))  # a new child, if a test ends this one
    return started


def test_each_question_has_a_process_of_its_own_below_one_child(child: LlamaFactoryChild) -> None:
    first, second = (child.ask(questions.process) for _number in range(2))
    assert first["child"] == second["child"] != os.getpid()
    assert len({first["pid"], second["pid"], first["child"], os.getpid()}) == 4
    assert not alive(int(str(first["pid"])))
    assert [child.ask(questions.count_calls) for _number in range(2)] == [1, 1]


def test_no_gpu_is_visible_and_no_network_used(child: LlamaFactoryChild) -> None:
    answer = child.ask(questions.process)
    assert (answer["CUDA_VISIBLE_DEVICES"], answer["HF_HUB_OFFLINE"]) == ("", "1")


@pytest.mark.parametrize("name", [b"plain", b"\xff\xfe", "é 文".encode(), b"two\nlines"])
def test_the_folder_and_environment_of_now_count(
    child: LlamaFactoryChild, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: bytes
) -> None:
    folder = tmp_path / os.fsdecode(name)
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MINE", os.fsdecode(name))
    answer = child.ask(questions.process)
    assert (answer["folder"], answer["MINE"]) == (str(folder), os.fsdecode(name))


@pytest.mark.parametrize("text", ["", "\udcff", "a\nb\r\u2028\x00", "文" * 1_500_000, '{"printed": 1}\n'])
def test_texts_come_back_whole(child: LlamaFactoryChild, text: str) -> None:
    value = {"template": text, "values": {}, "plural": "", "number": 1, text: [text, None, 1.5, float("inf")]}
    assert child.ask(questions.echo, value) == value


def test_a_large_answer_comes_whole(child: LlamaFactoryChild) -> None:
    assert child.ask(questions.text_of, 5_000_000) == "é" * 5_000_000


def test_a_message_comes_back_as_one_that_can_be_translated(child: LlamaFactoryChild) -> None:
    answer = child.ask(questions.message, 3)
    assert isinstance(answer, Message) and answer == "3 rows" and answer.plural == "{number:,} rows"


def test_only_progress_is_printed_and_without_control_characters(
    child: LlamaFactoryChild, capfd: pytest.CaptureFixture[str]
) -> None:
    assert child.ask(questions.print_much) == ""  # nor can it read our stdin
    printed = capfd.readouterr()
    assert printed.err == "counting \\u001b]0;title\\u0007tokens\n"
    assert printed.out == ""


@pytest.mark.parametrize(
    "how, figure",
    {
        "exception": "ValueError: odd value",
        "exit": "code 3",
        "sys.exit": "SystemExit: 0",
        "interrupt": "KeyboardInterrupt",
        "memory": "memory",
        "SIGKILL": "SIGKILL",
        "SIGSEGV": "SIGSEGV",
        "SIGTERM": "SIGTERM",
    }.items(),
)
def test_an_end_of_any_kind_is_one_error_and_ends_nothing_else(
    child: LlamaFactoryChild, how: str, figure: str
) -> None:
    before = child.ask(questions.process)["child"]
    with pytest.raises(ContentError, match=figure) as caught:
        child.ask(questions.fail, how)
    assert "\n" not in str(caught.value)
    assert child.ask(questions.process)["child"] == before


def test_an_endless_error_is_cut(child: LlamaFactoryChild) -> None:
    with pytest.raises(ContentError) as caught:
        child.ask(questions.fail, "long error")
    assert len(str(caught.value)) < 3000


def test_an_answer_that_is_no_json_is_an_error(child: LlamaFactoryChild) -> None:
    with pytest.raises(ContentError, match="TypeError"):
        child.ask(questions.unwritable)


def test_a_question_that_takes_too_long_ends_with_all_that_it_started(
    child: LlamaFactoryChild, tmp_path: Path
) -> None:
    before = child.ask(questions.process)["child"]
    with raises(ContentError, "0.5 s"):
        child.ask(questions.start_and_sleep, str(tmp_path / "pids"), seconds=0.5)
    wait_for_end(map(int, (tmp_path / "pids").read_text().split()))
    assert child.ask(questions.process)["child"] == before


def test_a_dead_question_whose_pipe_another_process_holds_is_noticed(
    child: LlamaFactoryChild, tmp_path: Path
) -> None:
    start = time.monotonic()
    with pytest.raises(ContentError, match="SIGKILL"):
        child.ask(questions.start_and_die, str(tmp_path / "pid"))
    assert time.monotonic() - start < 30  # the other process sleeps for minutes


def test_a_line_beyond_the_limit_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_module, "LARGEST_LINE", 1000)
    reading, writing = os.pipe()
    os.write(writing, b"a" * 900 + b"\n" + b"b" * 1001)
    lines = child_module._lines(reading, child_module.Fork(0), time.monotonic() + 60)
    assert next(lines) == b"a" * 900 + b"\n"
    with pytest.raises(OverflowError):
        next(lines)
    os.close(reading)
    os.close(writing)


def test_settings_beyond_the_limit_are_not_sent(
    child: LlamaFactoryChild, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "LARGEST_BATCH", 1 << 20)
    with raises(ContentError, "1 MiB"):
        child.ask(questions.length_of, "a" * (1 << 20))


def test_two_threads_get_their_own_answers(child: LlamaFactoryChild) -> None:
    answers: dict[int, object] = {}

    def ask(number: int) -> None:
        answers[number] = child.ask(questions.echo, number)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {number: number for number in range(4)}


def test_a_fork_of_the_asking_process_has_a_child_of_its_own(child: LlamaFactoryChild) -> None:
    ours = child.ask(questions.process)["child"]
    context = get_context("fork")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=lambda: sending.send(child.ask(questions.process)["child"]))
    process.start()
    assert receiving.recv() != ours
    process.join()
    assert child.ask(questions.process)["child"] == ours


def test_a_child_that_was_killed_has_a_successor(child: LlamaFactoryChild) -> None:
    before = int(str(child.ask(questions.process)["child"]))
    os.kill(before, signal.SIGKILL)
    wait_for_end([before])
    wait_until(lambda: len(list(Path(f"/proc/{before}/task").iterdir())) == 1)  # its thread has ended, too
    assert child.ask(questions.process)["child"] != before


def test_after_ctrl_c_nothing_is_left_and_the_next_answer_is_its_own(
    child: LlamaFactoryChild, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pids = tmp_path / "pids"

    def interrupt() -> None:
        written(pids)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        child.ask(questions.start_and_sleep, str(pids))
    wait_for_end(map(int, pids.read_text().split()))
    assert child.ask(questions.echo, "next") == "next"


@pytest.mark.parametrize("module", ["raise RuntimeError('broken driver')", "import no_such_package", "1 / 0"])
def test_a_failed_import_gives_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    child = LlamaFactoryChild()
    monkeypatch.setenv("PYTHONPATH", str(stand_in(tmp_path / "broken", module)))
    with pytest.raises(ContentError, match="broken driver|no_such_package|division by zero"):
        child.ask(questions.echo, 1)
    monkeypatch.setenv("PYTHONPATH", str(stand_in(tmp_path / "mended")))
    assert child.ask(questions.echo, 1) == 1
    child.end()


def run_script(folder: Path, body: str, shell: str = '"$@"') -> "subprocess.CompletedProcess[str]":
    """Run a script without `if __name__ == "__main__"`, as a shell starts it."""
    script = folder / "script.py"
    script.write_text(SCRIPT.format(body=body))
    return subprocess.run(
        ["sh", "-c", shell, "sh", sys.executable, str(script)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}"},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    "shell", ['"$@"', '"$@" <&-', '"$@" 2>&-', f'{IGNORES_CHILDREN} "$@"', "trap '' INT; exec \"$@\""]
)
def test_a_script_without_a_guard_asks_however_it_was_started(tmp_path: Path, shell: str) -> None:
    stand_in(tmp_path)
    body = """
sys.stdin = None  # as in some notebooks
try:
    client.ask(questions.fail, "SIGKILL")
except Exception as error:
    assert "SIGKILL" in str(error), error
print(client.ask(questions.echo, "answered"))
"""
    done = run_script(tmp_path, body, shell)
    assert done.stdout == "answered\n", done.stderr


@pytest.fixture
def started_script(tmp_path: Path) -> Iterator[Callable[[str], "subprocess.Popen[bytes]"]]:
    """Start a script that asks, and end it if a test does not."""
    scripts: list[subprocess.Popen[bytes]] = []

    def start(body: str) -> "subprocess.Popen[bytes]":
        script = tmp_path / "script.py"
        script.write_text(SCRIPT.format(body=body))
        variables = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
        scripts.append(subprocess.Popen([sys.executable, str(script)], cwd=tmp_path, env=variables))
        return scripts[-1]

    yield start
    for script in scripts:
        script.kill()
        script.wait()


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_outlives_the_asking_process(
    tmp_path: Path, started_script: Callable[[str], "subprocess.Popen[bytes]"], sign: signal.Signals
) -> None:
    stand_in(tmp_path)
    pid_file = tmp_path / "pids"
    script = started_script(f"client.ask(questions.start_and_sleep, {str(pid_file)!r})")
    pids = list(map(int, written(pid_file, script).split()))
    child = int(Path(f"/proc/{pids[0]}/stat").read_text().rsplit(")", 1)[1].split()[1])
    script.send_signal(sign)
    script.wait()
    wait_for_end([child, *pids])


def test_nothing_outlives_it_either_while_llamafactory_is_imported(
    tmp_path: Path, started_script: Callable[[str], "subprocess.Popen[bytes]"]
) -> None:
    stand_in(tmp_path, SLOW_IMPORT.format(path=str(tmp_path / "state")))
    script = started_script("client.ask(questions.echo, 1)")
    written(tmp_path / "state", script)
    children = Path(f"/proc/{script.pid}/task/{script.pid}/children")
    (child,) = map(int, children.read_text().split())
    script.kill()
    script.wait()
    wait_for_end([child])


def test_a_fork_that_outlives_the_asking_process_keeps_no_child_alive(
    tmp_path: Path, started_script: Callable[[str], "subprocess.Popen[bytes]"]
) -> None:
    stand_in(tmp_path)
    body = """
child = client.ask(questions.process)["child"]
fork = os.fork()
if fork == 0:
    import time
    time.sleep(600)
pathlib.Path("new").write_text(f"{child} {fork}")
pathlib.Path("new").rename("state")
client.ask(questions.sleep, 600)
"""
    script = started_script(body)
    child, fork = map(int, written(tmp_path / "state", script).split())
    script.kill()
    script.wait()
    wait_for_end([child])
    assert alive(fork)
    os.kill(fork, signal.SIGKILL)


def test_ctrl_c_of_the_terminal_between_questions_does_not_reach_the_child(tmp_path: Path) -> None:
    """It goes to all processes of the terminal's foreground group."""
    stand_in(tmp_path)
    body = """
import signal
before = client.ask(questions.process)["child"]
signal.signal(signal.SIGINT, lambda *_: None)  # as a prompt does
os.killpg(0, signal.SIGINT)
print(before == client.ask(questions.process)["child"])
"""
    assert run_script(tmp_path, body, 'exec setsid "$@"').stdout == "True\n"


def test_a_killed_child_takes_its_question_along(
    tmp_path: Path, started_script: Callable[[str], "subprocess.Popen[bytes]"]
) -> None:
    stand_in(tmp_path)
    pid_file = tmp_path / "pids"
    body = f"""
try:
    client.ask(questions.start_and_sleep, {str(pid_file)!r})
except Exception as error:
    pathlib.Path("error").write_text(str(error))
"""
    script = started_script(body)
    fork, program = map(int, written(pid_file, script).split())
    child = int(Path(f"/proc/{fork}/stat").read_text().rsplit(")", 1)[1].split()[1])
    os.kill(child, signal.SIGKILL)
    wait_until(lambda: (tmp_path / "error").exists())
    wait_for_end([fork])
    os.kill(program, signal.SIGKILL)
    assert "-9" in written(tmp_path / "error")
