"""python -m eval.qa against a server that says known things, and on a tiny model, in this process."""

import json
import re
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from tests.cli import scoring
from tests.cli.scoring import call, predictions
from tests.json_files import read_json, write_lines
from tests.real_data import real_path
from tests.serving import Quiet, local_server, serving
from tuneyard.core.errors import ContentError
from tuneyard.eval.data.dataset import read_datasets
from tuneyard.eval.qa.__main__ import PROMPTS, check_references, cli
from tuneyard.eval.statistics.rates import wilson

ROWS = [
    {"question": "Capital of France?", "answer": "Paris", "subset": "factual"},
    {"question": "中国的首都？", "answer": "北京是中国的首都", "subset": "factual"},
    {"question": "2 + 3?", "answer": "5", "subset": "reasoning"},
    {"question": "Why?", "answer": "Because."},
]
SAID = {
    "Capital of France?": "<think>Lyon?</think>\nThe Paris.",
    "中国的首都？": "北京是中国首都。",
    "2 + 3?": "It is 6",
    "Why?": " ",
}


class WithoutRoom(Quiet, BaseHTTPRequestHandler):
    """Answers as `SAID`. Other prompts are too long for it."""

    def do_POST(self) -> None:
        answer = SAID.get(json.loads(self.body())["messages"][-1]["content"])
        if answer is None:
            self.send(b"maximum context length is 8", 400)
        else:
            self.send(json.dumps({"choices": [{"message": {"content": answer}}]}).encode())


@pytest.fixture
def qa_rows(tmp_path: Path) -> Path:
    path = tmp_path / "asked.jsonl"
    write_lines(path, ROWS)
    return path


def ask(data: Path, out: Path, said: dict[str, str] = SAID) -> Path:
    scoring.ask(cli, lambda text: said.get(text, f"said of {text}"), "--data", data, "--out", out)
    return out / "m/asked"


def test_answers_are_held_against_references(qa_rows, tmp_path, capsys) -> None:
    folder = ask(qa_rows, tmp_path / "out")
    rows = predictions(folder)
    assert [(row["predicted_output"], row.get("type")) for row in rows] == [
        ("Paris", "factual"),  # matches, so in the reference's spelling
        ("北京是中国首都。", "factual"),
        ("It is 6", "reasoning"),
        ("", None),
    ]
    assert rows[0]["model_output"].startswith("<think>")
    assert rows[1]["similarity"] == rows[1]["token_f1"] == round(14 / 15, 6)
    found = read_json(folder / "results.json")
    assert (found["accuracy"], found["ci95"], found["empty"]) == (0.25, list(wilson(1, 4)), 1)
    assert found["partial_match"]["value"] == 0.5
    assert {name: part["exact_match"]["value"] for name, part in found["types"].items()} == {
        "factual": 0.5,
        "reasoning": 0.0,
    }
    similarity = found["similarity"]
    assert (similarity["above"], similarity["lexical"]) == (0.7, 2)  # the Chinese one and the number
    semantic = r"semantic: cosine by all-MiniLM-L6-v2 \([0-9a-f]{16}\) for Latin script"
    assert re.fullmatch(f"{semantic}, lexical: token F1 for others", similarity["by"])
    assert [one["prompt"] for one in found["generation"]] == list(PROMPTS)
    said = capsys.readouterr().out
    assert "partial (semantic and lexical) 50.0%" in said and "2 of 4 answers; --embedding-model" in said
    assert f"{PROMPTS[0]} → said of {PROMPTS[0]}" in said and "exact 25.0%" in said


BAD = {
    "no answers": ('{"instruction": "a"}', "record 1; 1"),
    "one without": (
        '{"question": "a", "answer": "b"}\n{"question": "c", "answer": " "}',
        "record 2; 1; 2; tuneyard eval ab",
    ),
}


def test_fixed_prompts_that_a_server_finds_too_long_are_left_out(qa_rows, tmp_path) -> None:
    with serving(local_server(WithoutRoom)) as url:
        given = ["--model", "m", "--backend", "openai", "--url", f"{url}/v1"]
        call(cli, *given, "--data", qa_rows, "--out", tmp_path / "out")
    results = read_json(tmp_path / "out/m/asked/results.json")
    assert (results["generation"], results["accuracy"]) == ([], 0.25)


@pytest.mark.parametrize(("content", "facts"), BAD.values(), ids=BAD)
def test_bad_data_is_refused_before_anything_is_asked(tmp_path, refused, content, facts) -> None:
    path = tmp_path / "asked.jsonl"
    path.write_text(content)
    with refused(ContentError, "asked.jsonl", facts):
        call(cli, "--model", "m", "--data", path, "--out", tmp_path / "out")


@pytest.mark.parametrize(
    "name",
    [
        "qa/medical_zh_qa.derived.jsonl",
        "pr/my_valid_dataset_1k.derived.jsonl",
        "io/belle_1k.json",
        "qa/gsm8k_test.jsonl",
    ],
)
def test_the_documents_three_layouts_are_read_as_they_stand(name) -> None:
    (questions,) = read_datasets((), (real_path(name),))
    check_references(questions)
    assert all(talk.messages[-1]["content"] for talk in questions.conversations)
