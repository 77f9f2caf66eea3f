"""What scoring says stays a message: no sentence of ours is a plain text inside another one.

A plain text is English for every reader. The catalogue has no part in it: what has no Chinese yet is a
message, too.
"""

import json
import re
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from tuneyard.core.datasets import Dataset
from tuneyard.core.errors import TuneyardError
from tuneyard.core.execution.state import UNFINISHED, State
from tuneyard.core.language.message import Message, _, translated
from tuneyard.core.language.reader import CHINESE, in_language
from tuneyard.eval.data.dataset import find_clusters, make_dataset
from tuneyard.eval.data.shots import with_shots
from tuneyard.eval.figures import check_metric
from tuneyard.eval.figures.labels import check_labels, find_labels
from tuneyard.eval.models import loading
from tuneyard.eval.models.connection import Connection
from tuneyard.eval.models.gguf_tokens import check_fields
from tuneyard.eval.models.served import LLAMA_CPP, ServedModel, choose_model, get
from tuneyard.eval.prove.modelfile import read_modelfile
from tuneyard.eval.prove.proof import ANSWERS, CHATS, PROMPTS, Proof, ProofPart, Tolerance
from tuneyard.eval.report.findings import sentence
from tuneyard.eval.report.lines import accuracy_line
from tuneyard.eval.runs.find import find_scored_runs
from tuneyard.eval.runs.findings import training_findings
from tuneyard.eval.runs.logs import read_log
from tuneyard.eval.runs.results import check_folder, check_same
from tuneyard.eval.scoring.request import ScoringRequest
from tuneyard.eval.scoring.state import refuse_existing

ENGLISH = re.compile(r"[A-Za-z]{2,} [a-z]{2,} [a-z]{2,}")
NOT_OURS = "tuneyard ", "File is not a zip file", "ConnectError: "
"""How commands begin, and what libraries say."""
HERE = ServedModel(Connection("http://127.0.0.1:9/v1"), LLAMA_CPP, "one", "one")


def english_inside(text: str) -> list[str]:
    """Sentences among the values of a message that are plain texts; the text itself if it is no message."""
    if not isinstance(text, Message):
        is_ours = ENGLISH.search(text) and not text.startswith(NOT_OURS)
        return [text] if is_ours else []
    sentences: list[str] = []
    for value in text.values.values():
        if isinstance(value, str):
            sentences += english_inside(value)
    return sentences


def test_a_sentence_inside_a_message_is_found() -> None:
    assert english_inside("no answer in time") == ["no answer in time"]
    inside = Message("{place}: {problem}", {"place": "a.json:3", "problem": "it has no rows"})
    assert english_inside(Message("{problem}; stop", {"problem": inside})) == ["it has no rows"]


def written(folder: Path, name: str, content: str | bytes) -> Path:
    """A file with this content."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def finished_run(folder: Path) -> Path:
    """A run of eval nli with one scored dataset."""
    settings = {"command": "eval.nli", "preset": "a"}
    run = {"settings": settings, "models": {"m": {"a": 1}}, "datasets": {"s": {"b": 1}}}
    written(folder, "run.json", json.dumps(run))
    written(folder, "m/s/results.json", "{}")
    return folder


def library_fails(folder: Path) -> None:
    with loading(folder):
        raise ValueError("x")


REFUSED: dict[str, Callable[[Path], object]] = {
    "unknown columns": lambda folder: read_log(written(folder, "a.csv", "b,c\n1,2\n")),
    "a list as JSON": lambda folder: read_log(written(folder, "a.json", '["b"]')),
    "broken JSON": lambda folder: read_log(written(folder, "a.json", '{"a": 1}\n{"a": 2}\n')),
    "no rows": lambda folder: read_log(written(folder, "a.csv", "id,gold,prediction\n")),
    "no gold": lambda folder: read_log(
        written(folder, "a.jsonl", '{"id": 1, "gold": null, "prediction": 1}\n')
    ),
    "a confidence of 2": lambda folder: read_log(
        written(folder, "a.csv", "id,gold,prediction,confidence\n1,a,a,2\n")
    ),
    "no zip": lambda folder: read_log(written(folder, "a.eval", "")),
    "cells": lambda folder: read_log(written(folder, "a.csv", "id,gold,prediction\n1,2\n")),
    "an empty folder": find_scored_runs,
    "an unfinished run": lambda folder: find_scored_runs(written(folder, "run.json", "{}").parent),
    "a finished run": lambda folder: refuse_existing(
        ScoringRequest("m", folder), State("stale", (_("{name} is new", name="adapter rte"),))
    ),
    "an interrupted run": lambda folder: refuse_existing(ScoringRequest("m", folder), UNFINISHED),
    "other settings": lambda folder: refuse_existing(
        ScoringRequest("m", folder),
        State("unfinished", (_("{name}: {before} → {now}", name="--limit", before=None, now=4),)),
    ),
    "another command": lambda folder: check_folder(
        finished_run(folder), "eval.qa", resume=False, force=False
    ),
    "changed settings": lambda folder: check_same(
        folder,
        {"settings": {"limit": 1}, "models": {}, "datasets": {}},
        {"settings": {"limit": 2}, "models": {}, "datasets": {}},
    ),
    "no cluster column": lambda folder: find_clusters(folder, [{"a": 1}], None, "topic", has_changed=False),
    "a misspelt column": lambda folder: make_dataset(
        Dataset("a", written(folder, "a.json", '[{"instructon": "b", "output": "c"}]'), {}), None, None, False
    ),
    "one answer": lambda folder: find_labels(["yes", "yes"], str(folder)),
    "another answer": lambda folder: check_labels(["yes", "perhaps"], ["yes", "no"], str(folder)),
    "no metric": lambda _folder: check_metric("accurate"),
    "no TEMPLATE": lambda folder: read_modelfile(written(folder, "Modelfile", "FROM a\n")),
    "many tensors": lambda folder: check_fields(
        written(folder, "a.gguf", b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 0))
    ),
    "a short GGUF": lambda folder: check_fields(written(folder, "a.gguf", b"GGUF")),
    "another model": lambda _folder: choose_model([HERE], "two", is_exact_name=True),
    "no server": lambda _folder: get(HERE.connection, "http://127.0.0.1:9/v1/models"),
    "a library": library_fails,
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_error_is_a_message_throughout(case: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TuneyardError) as caught:
        REFUSED[case](tmp_path)
    message = caught.value.message
    assert isinstance(message, Message) and str(message) == str(caught.value)
    assert english_inside(message) == [] and str(tmp_path / "a") not in message


def test_a_missing_training_split_is_a_message_throughout(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = written(tmp_path, "topics_eval.json", '[{"instruction": "b", "output": "c"}]')
    dataset = make_dataset(Dataset("topics_eval", file, {}), None, None, False)
    with pytest.raises(TuneyardError) as caught:
        with_shots([dataset], 2, (), None)
    assert "(no topics_train is registered)" in str(caught.value)
    assert english_inside(caught.value.message) == []


FACTS = {"adapters": ["a"]}
PARTS = [
    ProofPart(PROMPTS, "w", "s", 2, [0], 1, None),
    ProofPart(ANSWERS, "m", "s", 2, [0], 1, None, refused=[1], largest=0.5, largest_row=0),
    ProofPart(CHATS, "m", "s", 2, [], 1, None, runs_on=[0, 1]),
]


@pytest.mark.parametrize("flips", [0, 9])
def test_a_verdict_is_a_message_throughout(flips: int) -> None:
    proof = Proof("w", FACTS, Tolerance(flips, flips), comparisons=PARTS[1 if flips else 0 :])
    verdict = proof.verdict()
    expected = "Not equal: w differs in 1 of 2 prompts of s; "
    assert verdict.startswith("Equal on 2 examples: " if flips else expected)
    assert isinstance(verdict, Message) and english_inside(verdict) == []


def test_warnings_about_training_rows_are_messages_throughout() -> None:
    facts = {
        "trained_on": {"examples": 3, "sources": ["a.json"], "same_name": ["b"], "not_checked": ["c"]},
    }
    warnings = list(map(sentence, training_findings("m", "", 3, facts)))
    assert [str(warning) for warning in warnings] == [
        "m was trained on 3 of these 3 examples (a.json): this is training accuracy",
        "m was trained on a dataset of this name (b)",
        "m: training examples not checked: c",
    ]
    for warning in warnings:
        assert isinstance(warning, Message) and english_inside(warning) == []


def test_figures_are_written_once_for_both_languages() -> None:
    results = {"accuracy": 0.9, "ci95": [0.8, 1.0], "n": 30, "majority": 1}
    line = accuracy_line(results)
    assert line == "90.0% [80.0%, 100.0%]  n 30  majority none"
    with in_language(CHINESE):
        assert "90.0% [80.0%, 100.0%]" in translated(line)
