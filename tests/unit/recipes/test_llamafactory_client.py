"""The processes that answer for LLaMA-Factory, with small stand-ins for what it answers and trains."""

import json
import os
import signal
import subprocess
import sys
from contextlib import nullcontext
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets  # noqa: F401  # imported once for all forks
import pytest

from tests.conftest import ROOT
from tests.processes import alive
from tuneyard.core.errors import ContentError
from tuneyard.core.llamafactory.loader import Launch
from tuneyard.recipes.llamafactory import client as llamafactory_client
from tuneyard.recipes.llamafactory import inspection, rows
from tuneyard.recipes.llamafactory.answer import Facts
from tuneyard.recipes.llamafactory.client import LlamaFactory, ask
from tuneyard.recipes.llamafactory.launch import LOG
from tuneyard.recipes.machine.hardware import Gpu
from tuneyard.recipes.recipe import Recipe


class Questions:
    """The questions that reached the stand-in for inspection.py, one line each in a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __call__(self, settings: dict[str, object], launch: Launch) -> Facts:
        with self.file.open("a") as file:
            file.write("asked\n")
        os.write(1, b"noise of a library")
        print("counting tokens", file=rows.progress, flush=True)
        stage = settings.get("stage")
        if stage == "crash":
            raise ValueError("odd")
        if stage == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        launched = [launch.distributed, launch.zero_stage, launch.runs_model_code]
        return Facts(json.dumps({"pid": os.getpid(), "settings": settings, "launch": launched}))

    @property
    def count(self) -> int:
        return len(self.file.read_text().splitlines())


@pytest.fixture
def questions(monkeypatch, tmp_path):
    """Forks of this process, which has imported all that they need, in place of those of a forkserver."""
    questions = Questions(tmp_path / "asked")
    monkeypatch.setattr(llamafactory_client, "CONTEXT", get_context("fork"))
    monkeypatch.setattr(llamafactory_client, "start_forkserver", lambda: None)
    monkeypatch.setattr(llamafactory_client, "need", lambda *_: None)
    monkeypatch.setattr(inspection, "inspect", questions)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return questions


def recipe(folder: Path, **settings: object) -> Recipe:
    return Recipe(folder / "r.yaml", {"stage": "sft", "dataset_dir": str(folder), **settings}, {})


def asked(*question: Any) -> dict[str, Any]:
    """What the stand-in says of a question that reached it."""
    told: dict[str, Any] = json.loads(ask(*question).rejected)
    return told


def test_each_recipe_is_answered_in_a_process_of_its_own(questions, tmp_path, capfd):
    llamafactory = LlamaFactory()
    answers = [asked(llamafactory, recipe(tmp_path, lora_rank=n), "a/b", ()) for n in (4, 8)]
    assert len({os.getpid(), answers[0]["pid"], answers[1]["pid"]}) == 3
    assert [answer["settings"]["lora_rank"] for answer in answers] == [4, 8]
    assert not any(alive(answer["pid"]) for answer in answers)
    printed = capfd.readouterr()
    assert printed.err == "starting LLaMA-Factory …\ncounting tokens\ncounting tokens\n"
    assert printed.out == ""


def test_a_row_or_rank_that_changed_is_asked_about_again_and_a_learning_rate_is_not(questions, tmp_path):
    (tmp_path / "dataset_info.json").write_text('{"a": {"file_name": "a.json"}}')
    rate, rank = {"learning_rate": 2e-4}, {"lora_rank": 4}
    for text, changed in (("[]", {}), ("[{}]", {}), ("[{}]", rate), ("[{}]", rank)):
        (tmp_path / "a.json").write_text(text)
        ask(LlamaFactory(), recipe(tmp_path, dataset="a", **changed), "a/b", ())
    assert questions.count == 3


def test_rows_with_media_are_never_remembered(questions, tmp_path):
    """An image that is missing today may be there tomorrow."""
    (tmp_path / "a.json").write_text("[]")
    (tmp_path / "dataset_info.json").write_text('{"a": {"file_name": "a.json", "columns": {"images": "x"}}}')
    ask(LlamaFactory(), recipe(tmp_path, dataset="a"), "a/b", ())
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(("stage", "reason"), [("crash", "ValueError: odd"), ("die", "code -9")])
def test_a_crash_and_a_kill_are_one_error_and_end_nothing_else(questions, tmp_path, stage, reason):
    llamafactory = LlamaFactory()
    with pytest.raises(ContentError) as caught:
        ask(llamafactory, recipe(tmp_path, stage=stage), "a/b", ())
    assert str(caught.value).endswith(reason) and "\n" not in str(caught.value)
    assert asked(llamafactory, recipe(tmp_path), "a/b", ())["settings"]["stage"] == "sft"


def test_a_failed_import_gives_its_reason(questions, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ContentError, match="ModuleNotFoundError: import of datasets halted"):
        ask(LlamaFactory(), recipe(tmp_path), "a/b", ())


@pytest.mark.parametrize("code", [0, 3])
def test_a_training_is_one_more_fork(questions, tmp_path, monkeypatch, code):
    def train() -> None:
        os.write(1, f"{sys.argv[1:]} ".encode())
        sys.exit(code)

    monkeypatch.setitem(sys.modules, "llamafactory.cli", SimpleNamespace(main=train))
    llamafactory = LlamaFactory()
    with (tmp_path / "lock").open("w") as lock:
        ask(llamafactory, recipe(tmp_path), "a/b", ())
        (tmp_path / LOG).write_text("before\n")
        with pytest.raises(ContentError, match="exit code 3") if code else nullcontext():
            llamafactory.train(tmp_path / "recipe.yaml", None, tmp_path, lock.fileno())
    assert (tmp_path / LOG).read_text() == f"before\n['train', '{tmp_path / 'recipe.yaml'}'] "


def test_llamafactory_learns_how_the_training_is_launched(questions, tmp_path):
    (tmp_path / "z3.json").write_text('{"zero_optimization": {"stage": 3}}')
    one, two = (Gpu("A100-80", 8),), (Gpu("A100-80", 8),) * 2
    llamafactory = LlamaFactory()
    for gpus, launch in {(): [False, 0, False], one: [False, 0, False], two: [True, 0, False]}.items():
        assert asked(llamafactory, recipe(tmp_path), "a/b", gpus)["launch"] == launch
    deepspeed = recipe(tmp_path, deepspeed=str(tmp_path / "z3.json"))
    assert asked(llamafactory, deepspeed, "a/b", one)["launch"] == [True, 3, False]
    trusting = recipe(tmp_path, trust_remote_code=True)
    assert asked(llamafactory, trusting, "a/b", ())["launch"] == [False, 0, False]
    allowed = LlamaFactory(runs_model_code=True)
    assert asked(allowed, trusting, "a/b", ())["launch"] == [False, 0, True]


def test_the_code_of_a_training_is_its_own_under_a_scheduler_that_ignores_child_signals():
    code = (
        "import signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
        "from tuneyard.recipes.llamafactory.server import run_guarded; run_guarded(sys.exit, 3)"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False)
    assert ended.returncode == 3
