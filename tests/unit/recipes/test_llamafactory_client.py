"""The process that answers for LLaMA-Factory, with a small stand-in for it."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.messages import raises
from tuneyard.core.errors import ContentError
from tuneyard.recipes import llamafactory_client
from tuneyard.recipes.hardware import Gpu
from tuneyard.recipes.launch import LOG
from tuneyard.recipes.llamafactory_client import LlamaFactory, ask
from tuneyard.recipes.recipe import Recipe

STAND_IN = """
import json, os, socket, sys
channel = socket.socket(fileno=int(sys.argv[1]))
def send(answer):
    channel.sendall(json.dumps(answer).encode() + b"\\n")
if sys.argv[2] == "no import":
    sys.exit("ImportError: no torch")
send({"ready": True})
while True:
    line, descriptors, _, _ = socket.recv_fds(channel, 1 << 16, 2)
    if not line:
        break
    request = json.loads(line)
    if "train" in request:
        log, lock = descriptors
        os.write(log, f"{os.getpid()} trains {request['train']} with {request['weights']}".encode())
        os.fstat(lock)
        sys.exit(int(sys.argv[2]) if sys.argv[2].isdigit() else 0)
    stage = request["settings"].get("stage")
    if stage == "crash":
        send({"crashed": "ValueError: odd"})
    elif stage == "die":
        sys.exit("Killed")
    else:
        send({"pid": os.getpid(), **request})
"""


class Starter:
    """Starts the stand-in in place of LLaMA-Factory's process."""

    def __init__(self) -> None:
        self.mode = "answers"
        self.processes: list[subprocess.Popen] = []

    def __call__(self, command: list[str], **options: Any) -> subprocess.Popen:
        process = subprocess.Popen([sys.executable, "-c", STAND_IN, command[4], self.mode], **options)
        self.processes.append(process)
        return process


@pytest.fixture
def starter(monkeypatch, tmp_path):
    starter = Starter()
    monkeypatch.setattr(llamafactory_client, "supervised", starter)
    monkeypatch.setattr(llamafactory_client, "need", lambda *_: None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return starter


def recipe(folder: Path, **settings: object) -> Recipe:
    return Recipe(folder / "r.yaml", {"stage": "sft", "dataset_dir": str(folder), **settings}, {})


def test_one_process_answers_for_all_recipes_of_a_command(starter, tmp_path, capfd):
    with LlamaFactory() as llamafactory:
        assert not starter.processes  # nothing was asked yet
        answers = [ask(llamafactory, recipe(tmp_path, lora_rank=n), "a/b", ()) for n in (4, 8)]
    assert answers[0]["pid"] == answers[1]["pid"]
    assert [answer["settings"]["lora_rank"] for answer in answers] == [4, 8]
    (process,) = starter.processes
    assert process.wait(5) == 0  # it ended with the block
    assert capfd.readouterr().err.count("starting LLaMA-Factory") == 1


def test_an_unchanged_recipe_is_not_asked_about_again(starter, tmp_path):
    for _ in range(2):
        with LlamaFactory() as llamafactory:
            ask(llamafactory, recipe(tmp_path), "a/b", ())
    assert len(starter.processes) == 1


def test_a_row_that_changed_is_asked_about_again(starter, tmp_path):
    (tmp_path / "dataset_info.json").write_text('{"a": {"file_name": "a.json"}}')
    with LlamaFactory() as llamafactory:
        for text in ("[]", "[{}]", "[{}]"):
            (tmp_path / "a.json").write_text(text)
            ask(llamafactory, recipe(tmp_path, dataset="a"), "a/b", ())
    assert len(list((tmp_path / "cache/tuneyard/inspect").iterdir())) == 2


def test_rows_with_media_are_never_remembered(starter, tmp_path):
    """An image that is missing today may be there tomorrow."""
    (tmp_path / "a.json").write_text("[]")
    (tmp_path / "dataset_info.json").write_text('{"a": {"file_name": "a.json", "columns": {"images": "x"}}}')
    with LlamaFactory() as llamafactory:
        ask(llamafactory, recipe(tmp_path, dataset="a"), "a/b", ())
    assert not (tmp_path / "cache").exists()


def test_a_recipe_that_crashes_does_not_end_the_process(starter, tmp_path):
    with LlamaFactory() as llamafactory:
        with raises(ContentError, "ValueError"):
            ask(llamafactory, recipe(tmp_path, stage="crash"), "a/b", ())
        ask(llamafactory, recipe(tmp_path), "a/b", ())
    assert len(starter.processes) == 1


def test_a_process_that_dies_is_started_again(starter, tmp_path):
    with LlamaFactory() as llamafactory:
        with raises(ContentError):
            ask(llamafactory, recipe(tmp_path, stage="die"), "a/b", ())
        ask(llamafactory, recipe(tmp_path), "a/b", ())
    assert len(starter.processes) == 2


def test_a_failed_import_gives_its_reason(starter, tmp_path):
    starter.mode = "no import"
    with (
        LlamaFactory() as llamafactory,
        raises(ContentError, "ImportError"),
    ):
        ask(llamafactory, recipe(tmp_path), "a/b", ())


def test_a_setting_that_json_does_not_know_is_asked_about_as_text(starter, tmp_path):
    with LlamaFactory() as llamafactory:
        answer = ask(llamafactory, recipe(tmp_path, run_name=b"!!binary of YAML"), "a/b", ())
    assert answer["settings"]["run_name"] == "b'!!binary of YAML'"


@pytest.mark.parametrize("code", ["0", "3"])
def test_the_process_that_answered_becomes_the_trainer(starter, tmp_path, code):
    starter.mode = code
    with LlamaFactory() as llamafactory, (tmp_path / "lock").open("w") as lock:
        ask(llamafactory, recipe(tmp_path), "a/b", ())
        (tmp_path / LOG).write_text("before\n")
        if code == "0":
            llamafactory.train(tmp_path / "recipe.yaml", None, tmp_path, lock.fileno())
        else:
            with pytest.raises(ContentError, match="exit code 3"):  # its log has a process number
                llamafactory.train(tmp_path / "recipe.yaml", None, tmp_path, lock.fileno())
    (process,) = starter.processes  # no second import
    log = (tmp_path / LOG).read_text()
    assert log == f"before\n{process.pid} trains {tmp_path / 'recipe.yaml'} with None"


def test_llamafactory_learns_how_the_training_is_launched(starter, tmp_path, monkeypatch):
    (tmp_path / "z3.json").write_text('{"zero_optimization": {"stage": 3}}')
    one, two = (Gpu("A100-80", 8),), (Gpu("A100-80", 8),) * 2
    launches = {
        (): {"distributed": False, "zero_stage": 0},
        one: {"distributed": False, "zero_stage": 0},
        two: {"distributed": True, "zero_stage": 0},
    }
    with LlamaFactory() as llamafactory:
        for gpus, launch in launches.items():
            assert ask(llamafactory, recipe(tmp_path), "a/b", gpus)["launch"] == launch
        deepspeed = recipe(tmp_path, deepspeed=str(tmp_path / "z3.json"))
        launch = {"distributed": True, "zero_stage": 3}
        assert ask(llamafactory, deepspeed, "a/b", one)["launch"] == launch
