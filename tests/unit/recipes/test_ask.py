"""What is remembered of LLaMA-Factory's answers, without asking it."""

from pathlib import Path

import pytest

from recipes import ask
from recipes.recipe import Recipe


@pytest.fixture
def asked(monkeypatch):
    """Return the list of questions that were put, each answered in the same way."""
    questions = []
    monkeypatch.setattr(ask, "_inspect", lambda settings: questions.append(settings) or {"rejected": None})
    return questions


def question(tmp_path: Path) -> dict[str, object]:
    return ask.ask(Recipe(tmp_path / "r.yaml", {"stage": "sft", "dataset_dir": str(tmp_path)}, {}), "a/b")


def test_a_broken_memory_is_asked_again(tmp_path, monkeypatch, asked):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert question(tmp_path) == question(tmp_path) == {"rejected": None}
    assert len(asked) == 1
    (kept,) = (tmp_path / "tuneyard/inspect").iterdir()
    kept.write_text("{")
    question(tmp_path)
    question(tmp_path)
    assert len(asked) == 2


def test_a_cache_that_cannot_be_written_costs_time_only(tmp_path, monkeypatch, asked):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert question(tmp_path) == {"rejected": None}
    assert len(asked) == 1


def test_a_setting_that_json_does_not_know_is_asked_about_as_text(monkeypatch):
    class StartedError(Exception):
        pass

    def start(*_command: object, **_named: object) -> None:
        raise StartedError

    monkeypatch.setattr(ask.subprocess, "Popen", start)
    with pytest.raises(StartedError):
        ask._inspect({"run_name": b"!!binary of YAML"})
