"""What LLaMA-Factory is asked about a recipe, and when a kept answer is enough."""

import json
from pathlib import Path
from typing import Any

import pytest

from tuneyard.core.llamafactory import client
from tuneyard.core.llamafactory.loader import Launch
from tuneyard.recipes.llamafactory.answer import Facts
from tuneyard.recipes.llamafactory.inspection import inspect
from tuneyard.recipes.llamafactory.questions import ask
from tuneyard.recipes.machine.hardware import Gpu
from tuneyard.recipes.recipe import Recipe


class Asked:
    """A stand-in for LLaMA-Factory's child: its answer is what it was asked."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, function: object, settings: dict[str, object], launch: Launch) -> Facts:
        assert function is inspect
        self.count += 1
        launched = [launch.distributed, launch.zero_stage, launch.runs_model_code]
        return Facts(json.dumps({"settings": settings, "launch": launched}))


@pytest.fixture
def questions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Asked:
    questions = Asked()
    monkeypatch.setattr(client, "ask", questions)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return questions


def recipe(folder: Path, **settings: object) -> Recipe:
    return Recipe(folder / "r.yaml", {"stage": "sft", "dataset_dir": str(folder), **settings}, {})


def question(*arguments: Any, **options: bool) -> dict[str, Any]:
    """What reaches LLaMA-Factory."""
    content: dict[str, Any] = json.loads(ask(*arguments, **options).rejected)
    return content


def test_a_row_or_rank_that_changed_is_asked_about_again_and_a_learning_rate_is_not(
    questions: Asked, tmp_path: Path
) -> None:
    (tmp_path / "dataset_info.json").write_text('{"a": {"file_name": "a.json"}}')
    rate, rank = {"learning_rate": 2e-4}, {"lora_rank": 4}
    for text, changed in (("[]", {}), ("[{}]", {}), ("[{}]", rate), ("[{}]", rank)):
        (tmp_path / "a.json").write_text(text)
        ask(recipe(tmp_path, dataset="a", **changed), "a/b", ())
    assert questions.count == 3


def test_rows_with_media_are_never_remembered(questions: Asked, tmp_path: Path) -> None:
    """An image that is missing today may be there tomorrow."""
    (tmp_path / "a.json").write_text("[]")
    (tmp_path / "dataset_info.json").write_text('{"a": {"file_name": "a.json", "columns": {"images": "x"}}}')
    for _number in range(2):
        ask(recipe(tmp_path, dataset="a"), "a/b", ())
    assert questions.count == 2
    assert not (tmp_path / "cache").exists()


def test_llamafactory_learns_how_the_training_is_launched(questions: Asked, tmp_path: Path) -> None:
    (tmp_path / "z3.json").write_text('{"zero_optimization": {"stage": 3}}')
    one, two = (Gpu("A100-80", 8),), (Gpu("A100-80", 8),) * 2
    for gpus, launch in {(): [False, 0, False], one: [False, 0, False], two: [True, 0, False]}.items():
        assert question(recipe(tmp_path), "a/b", gpus)["launch"] == launch
    deepspeed = recipe(tmp_path, deepspeed=str(tmp_path / "z3.json"))
    assert question(deepspeed, "a/b", one)["launch"] == [True, 3, False]
    trusting = recipe(tmp_path, trust_remote_code=True)
    assert question(trusting, "a/b", ())["launch"] == [False, 0, False]
    assert question(trusting, "a/b", (), runs_model_code=True)["launch"] == [False, 0, True]
