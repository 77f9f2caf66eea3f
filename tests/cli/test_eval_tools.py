"""python -m eval.tools against a server that calls known tools, and on a tiny model, in this process."""

import json
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import SimpleNamespace

import click
import pytest

from tests.cli import scoring
from tests.cli.scoring import call, predictions, results
from tests.json_files import read_json, read_lines, write_json, write_lines
from tests.messages import raises
from tests.serving import Quiet, local_server, serving
from tests.tool_formats import TOOL_FORMATS, format_calls
from tuneyard.core.cli.main import CommandLine
from tuneyard.core.datasets.trained_examples import fingerprints_of
from tuneyard.core.errors import ContentError
from tuneyard.core.records.calls import Call
from tuneyard.eval.data.dataset import read_datasets
from tuneyard.eval.scoring.request import ScoringRequest
from tuneyard.eval.tools.__main__ import cli, turns_of

TOOLS = json.dumps([{"name": "add", "parameters": {"properties": {"a": {"type": "integer"}}}}])
CALL = '{"name": "add", "arguments": {"a": 1}}'


def request_of(context: click.Context) -> ScoringRequest:
    """The request of a command line, of which no option counts as given."""
    return cli.request(context.params, {}, CommandLine("tuneyard eval tools", ()))


def talk(*turns: tuple[str, str], tools: str = TOOLS) -> dict[str, object]:
    return {"conversations": [{"from": role, "value": text} for role, text in turns], "tools": tools}


ROWS = [
    talk(("human", "Add 1."), ("function_call", CALL), ("observation", "sum 1"), ("gpt", "It is 1.")),
    talk(("human", "Sing."), ("gpt", "La.")),
    talk(("human", "Hi."), ("gpt", "Hello."), tools=""),
]
SAID = {
    "Add 1.": f"<tool_call>{CALL}</tool_call>",
    "sum 1": f"<tool_call>{CALL}</tool_call>",
    "Sing.": "La la.",
}


@pytest.fixture
def talks(tmp_path: Path) -> Path:
    path = tmp_path / "talks.jsonl"
    write_lines(path, ROWS)
    return path


def ask(data: Path, out: Path, *more: str) -> tuple[list[dict], dict]:
    scoring.ask(cli, lambda text: SAID.get(text, "?"), "--data", data, "--out", out, *more)
    return predictions(out / "m/talks"), results(out / "m/talks")


def test_every_turn_of_the_models_is_an_example_and_conversations_are_clusters(talks, tmp_path, capsys):
    rows, found = ask(talks, tmp_path / "out")
    assert [(r["instruction"], r["expected_output"], r["predicted_output"]) for r in rows] == [
        ("Add 1.", 'add {"a": 1}', 'add {"a": 1}'),
        ("sum 1", "no call", 'add {"a": 1}'),
        ("Sing.", "no call", "no call"),
    ]
    assert rows[0]["model_output"] == SAID["Add 1."]
    assert (found["cluster"], found["clusters"]) == ("conversation", 2)
    assert (found["accuracy"], found["no_call"]["value"], found["function"]["value"]) == (2 / 3, 0.5, 1)
    assert "add  right function 100.0%" in capsys.readouterr().out
    assert ask(talks, tmp_path / "apart", "--cluster", "none")[1]["clusters"] is None


@pytest.mark.parametrize("form", TOOL_FORMATS)
def test_correct_calls_are_correct_in_every_form_of_llamafactory(form, talks, tmp_path):
    right = format_calls(form, [Call("add", {"a": 1})])
    scoring.ask(cli, {**SAID, "Add 1.": right}.get, "--data", talks, "--out", tmp_path / "out")
    assert results(tmp_path / "out/m/talks")["arguments"]["value"] == 1


@pytest.mark.parametrize(
    ("template", "form"),
    [
        ("qwen3_5", "qwen3_5"), ("qwen3_6", "qwen3_5"), ("gemma4n", "gemma4"), ("glmz1", "glm4"),
        ("lfm2_vl", "lfm2"), ("bailing_v2", "ling"), ("mistral_small", "mistral"), ("llama4", "llama3"),
        ("minimax2", "minimax2"), ("seed_oss", "seed_oss"), ("glm4_7", "glm4_moe"), ("phi4", "default"),
    ],
)  # fmt: skip
def test_a_template_names_the_form_of_its_calls(template, form, talks, tmp_path):
    words = ["--model", "m", "--data", str(talks), "--out", str(tmp_path / "out"), "--template", template]
    with cli.make_context("tools", words) as context:
        evaluation, _ = cli.prepare(request_of(context))
    assert evaluation.tool_format == form and evaluation.special_tokens


def test_kept_answers_are_read_in_the_form_of_the_template(talks, tmp_path, tiny_model):
    words = ["--model", tiny_model, "--data", talks, "--template", "seed_oss", "--out", tmp_path / "a"]
    call(cli, *words, "--max-new-tokens", "2", "--limit", "3")
    path = tmp_path / "a/base/talks/predictions.jsonl"
    lines = read_lines(path)
    lines[0]["model_output"] = format_calls("seed_oss", [Call("add", {"a": 1})])
    lines[1]["model_output"] = format_calls("qwen", [Call("add", {"a": 1})])
    write_lines(path, lines)
    call(cli, "--rescore", tmp_path / "a", "--data", talks, "--out", tmp_path / "b")
    rescored = predictions(tmp_path / "b/base/talks")
    assert [line["predicted_output"] for line in rescored[:2]] == ['add {"a": 1}', "unknown"]


@pytest.mark.parametrize(("owner", "kept"), [("vllm", {False}), ("llamacpp", {None}), ("x", {None})])
def test_vllm_is_asked_to_keep_the_special_tokens_that_mark_calls(owner, kept, talks, tmp_path):
    asked = []

    class Handler(Quiet, BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send(json.dumps({"data": [{"id": "m", "owned_by": owner}]}).encode())

        def do_POST(self) -> None:
            asked.append(json.loads(self.body()))
            self.send(json.dumps({"choices": [{"message": {"content": "La."}}]}).encode())

    with serving(local_server(Handler)) as url:
        words = ["--model", "m", "--backend", "openai", "--url", f"{url}/v1", "--data", talks]
        call(cli, *words, "--out", tmp_path / "out")
    assert {body.get("skip_special_tokens") for body in asked} == kept


def test_a_training_on_a_conversation_has_read_every_turn_of_it(talks) -> None:
    (dataset,) = read_datasets((), (talks,))
    called, answered, sung = turns_of(dataset).origin.fingerprints.tolist()
    assert called == answered != sung
    assert [called, sung] == fingerprints_of(dataset.conversations[:2]).tolist()


def test_a_set_without_tools_is_refused(tmp_path):
    path = tmp_path / "a.jsonl"
    write_json(path, ROWS[2])
    with raises(ContentError, "a.jsonl"):
        turns_of(read_datasets((), (path,))[0])


def test_a_chat_template_without_tools_is_refused_and_a_template_of_llamafactorys_takes_them(
    talks, tmp_path, tiny_model
):
    given = ["--model", tiny_model, "--data", talks, "--max-new-tokens", "2"]
    with raises(ContentError, "add"):
        call(cli, *given, "--out", tmp_path / "a")
    call(cli, *given, "--out", tmp_path / "b", "--template", "qwen")
    assert read_json(tmp_path / "b/base/talks/results.json")["n"] == 3


@pytest.mark.parametrize(("difference", "said"), [("was trained otherwise", 1), (None, 0)])
def test_a_prompt_with_tools_that_was_not_trained_is_said_once(
    talks, tmp_path, monkeypatch, capsys, difference, said
):
    asked = []

    def other_prompt(_tokenizer, _folder, _prompting, template, talks):
        asked.append((template, talks))
        return difference

    monkeypatch.setattr("tuneyard.eval.scoring.candidates.other_prompt", other_prompt)
    part = SimpleNamespace(adapter=SimpleNamespace(folder=tmp_path))
    candidates = [
        SimpleNamespace(adapters=(part, part), prompting=None),
        SimpleNamespace(adapters=(), prompting=None),
    ]
    opened = SimpleNamespace(backend=SimpleNamespace(tokenizer="own"), candidates=candidates)
    given = ["--model", "m", "--data", str(talks), "--out", str(tmp_path / "out"), "--template", "qwen"]
    with cli.make_context("tools", given) as context:
        evaluation, _ = cli.prepare(request_of(context))
        evaluation.check_models(opened)
    assert asked[0][0] == "qwen" and "tools" in asked[0][1][0][0]
    assert capsys.readouterr().err.count("warning: adapter was trained otherwise") == said
