"""Rows that a server refuses: counted as unanswered, named, and limited by --max-refused."""

import json
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import click
import pytest

from tests.cli.scoring import call, predictions, results
from tests.json_files import read_json, write_lines
from tests.messages import raises
from tests.serving import Quiet, local_server, serving
from tuneyard.core.errors import RequestError
from tuneyard.eval import dialogue, nli
from tuneyard.eval.compare import __main__ as compare
from tuneyard.eval.defect import __main__ as defect
from tuneyard.eval.qa import __main__ as qa
from tuneyard.eval.tools import __main__ as tools

COUNT = 20
FILTERED = '{"error": {"code": "content_filter", "message": "The prompt was filtered"}}'
CUT = '{"choices": [{"finish_reason": "content_filter", "message": {"content": "ye"}}]}'
WITHOUT_MESSAGE = '{"choices": [{"finish_reason": "content_filter"}]}'
REFUSALS = {
    "HTTP 400": (400, FILTERED),
    "HTTP 422": (422, "unprocessable"),
    "HTTP 451": (451, "legal reasons"),
    "HTTP 413": (413, "too large"),
    "HTTP 403 of a moderation": (403, '{"error": {"message": "Your input was flagged by moderation"}}'),
    "no choices": (200, '{"choices": []}'),
    "cut by a filter": (200, CUT),
    "choices that are null": (200, '{"choices": null}'),
    "an error with status 200": (200, '{"error": {"code": 403, "message": "flagged"}}'),
    "another word of a filter": (200, CUT.replace("content_filter", "CONTENT_FILTER: safety")),
    "filtered without a message": (200, WITHOUT_MESSAGE),
}
Refused = dict[str, tuple[int, str]]


@pytest.fixture
def served() -> Iterator[tuple[str, Refused, list[str]]]:
    """A server that answers yes: its address, its refusals by the last word of a question, the questions."""
    refused: Refused = {}
    questions: list[str] = []

    class Handler(Quiet, BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            question = json.loads(self.body())["messages"][-1]["content"]
            questions.append(question)
            answer = json.dumps({"choices": [{"message": {"content": "yes"}}]})
            status, body = refused.get(question.split()[-1], (200, answer))
            self.send(body.encode(), status)

    with serving(local_server(Handler)) as url:
        yield f"{url}/v1", refused, questions


@pytest.fixture
def ask(tmp_path: Path, served) -> Callable[..., Path]:
    """Score a file of questions that end in their number; the folder of the dataset's results."""
    rows = [{"instruction": f"Is it so? {n}", "output": ("yes", "no")[n % 2]} for n in range(COUNT)]
    write_lines(tmp_path / "asked.jsonl", rows)

    def run(*more: object, command: click.Command = nli.cli, out: str = "out") -> Path:
        words = ["--model", "m", "--backend", "openai", "--url", served[0]]
        if command is nli.cli:
            words += ["--mode", "generate"]
        call(command, *words, "--data", tmp_path / "asked.jsonl", "--out", tmp_path / out, *more)
        return tmp_path / out / "m/asked"

    return run


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_refused_row_counts_as_unanswered(ask, served, refusal, capsys) -> None:
    served[1]["7"] = REFUSALS[refusal]
    folder = ask("--max-refused", "1")
    found, lines = results(folder), predictions(folder)
    assert (found["n"], found["accuracy"], found["refused"], found["too_long"]) == (20, 10 / 20, 1, 0)
    assert lines[7]["predicted_output"] == "unknown" and lines[7]["refused"].startswith("HTTP")
    assert [line["row"] for line in lines if "refused" in line] == [7]
    assert "1 row refused by the server" in capsys.readouterr().err


def test_a_run_stops_at_its_limit_and_goes_on_with_a_larger_one(ask, served, tmp_path) -> None:
    served[1].update({"3": REFUSALS["HTTP 400"], "12": REFUSALS["no choices"]})
    whole = ask("--max-refused", "2", out="whole")
    with raises(RequestError, "record 4", "HTTP 400", "--max-refused", "--resume"):
        ask()
    left = (tmp_path / "out/m/asked/predictions.jsonl").read_bytes()
    assert left.count(b"\n") == 8
    assert not (tmp_path / "out/m/asked/results.json").exists()
    with raises(RequestError, "record 4"):
        ask("--resume")
    with raises(RequestError, "record 4", "record 13", "2"):
        ask("--resume", "--max-refused", "1")
    served[2].clear()
    folder = ask("--resume", "--max-refused", "2")
    assert len(served[2]) == 4
    assert (folder / "predictions.jsonl").read_bytes() == (whole / "predictions.jsonl").read_bytes()
    assert results(folder)["refused"] == 2


def test_the_limit_is_of_each_dataset(ask, served, tmp_path) -> None:
    served[1]["3"] = REFUSALS["HTTP 400"]
    (tmp_path / "other.jsonl").write_bytes((tmp_path / "asked.jsonl").read_bytes())
    folder = ask("--data", tmp_path / "other.jsonl", "--max-refused", "1")
    assert results(folder)["refused"] == results(folder.with_name("other"))["refused"] == 1


@pytest.mark.parametrize("limit", [19, 20, 500])
def test_a_run_without_any_answer_is_no_result(ask, served, tmp_path, limit) -> None:
    served[1].update({str(n): REFUSALS["HTTP 400"] for n in range(COUNT)})
    with raises(RequestError, "20", "HTTP 400"):
        ask("--max-refused", str(limit))
    assert not list(tmp_path.rglob("results.json"))
    with raises(RequestError, "20", "HTTP 400"):
        ask("--max-refused", str(limit), "--resume")


def test_a_models_own_refusal_is_its_answer(ask, served) -> None:
    message = {"content": None, "refusal": "I cannot say yes."}
    served[1]["7"] = (200, json.dumps({"choices": [{"message": message}]}))
    assert predictions(ask())[7]["model_output"] == "I cannot say yes."


@pytest.mark.parametrize("status", [404, 405, 501])
def test_an_address_that_the_server_lacks_is_no_refusal_of_a_row(ask, served, status) -> None:
    served[1].update({str(n): (status, "nothing here") for n in range(COUNT)})
    with raises(RequestError, f"HTTP {status}"):
        ask("--max-refused", "20")


def test_only_servers_refuse(tmp_path) -> None:
    words = ["--model", "m", "--data", "a.jsonl", "--out", tmp_path / "out", "--max-refused", "1"]
    with raises(RequestError, "--max-refused", "--backend"):
        call(nli.cli, *words)


def test_kept_refusals_stay_refusals(ask, served, tmp_path) -> None:
    served[1]["7"] = REFUSALS["HTTP 400"]
    folder = ask("--max-refused", "1")
    call(nli.cli, "--rescore", tmp_path / "out", "--data", tmp_path / "asked.jsonl", "--out", tmp_path / "b")
    rescored = tmp_path / "b/m/asked"
    assert predictions(rescored) == predictions(folder) and results(rescored)["refused"] == 1


def test_a_comparison_and_its_page_name_the_refused_rows(ask, served, tmp_path, capsys) -> None:
    ask(out="first")
    served[1].update({"3": REFUSALS["HTTP 400"], "4": REFUSALS["HTTP 422"]})
    ask("--max-refused", "2", out="second")
    capsys.readouterr()
    runs = [f"base={tmp_path / 'first/m'}", f"tuned={tmp_path / 'second/m'}"]
    call(compare.cli, *runs, "--out", tmp_path / "verdict")
    notice = "tuned: the server refused 2 of 20 rows of asked, counted as unanswered (3, 4)"
    assert notice in capsys.readouterr().err
    assert notice in (tmp_path / "verdict/report.html").read_text()
    assert read_json(tmp_path / "verdict/table.json")["warnings"][0] == notice


TALK = [
    {"role": "user", "content": "a 1"},
    {"role": "assistant", "content": "b"},
    {"role": "user", "content": "c 2"},
    {"role": "assistant", "content": "d"},
]
ADD = json.dumps([{"name": "add"}])
OTHERS = {
    "qa": (qa.cli, [{"instruction": f"Q {n}", "output": "yes"} for n in range(4)], ()),
    "defect": (
        defect.cli,
        [{"instruction": f"Q {n}", "output": "判断：可采纳\n原因：好", "subtype": "s"} for n in range(4)],
        (),
    ),
    "tools": (
        tools.cli,
        [{"messages": [{"role": "user", "content": f"Q {n}"}, TALK[1]], "tools": ADD} for n in range(4)],
        (),
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_every_command_that_generates_takes_refusals(name, served, tmp_path) -> None:
    command, rows, more = OTHERS[name]
    write_lines(tmp_path / "rows.jsonl", rows)
    served[1]["2"] = REFUSALS["no choices"]
    words = ["--model", "m", "--backend", "openai", "--url", served[0], "--data", tmp_path / "rows.jsonl"]
    words += ["--out", tmp_path / "out", *more]
    with raises(RequestError, "record 3", "--max-refused"):
        call(command, *words)
    call(command, *words, "--resume", "--max-refused", "1")
    folder = tmp_path / "out/m/rows"
    assert results(folder)["refused"] == 1
    line = predictions(folder)[2]
    assert "refused" in line and line.get("predicted_output", "") in ("unknown", "")
    if name == "qa":
        assert (results(folder)["exact_match"]["value"], results(folder)["empty"]) == (0.75, 0)


def test_a_conversation_with_a_refused_turn_is_left_out(served, tmp_path) -> None:
    other = [{**turn, "content": f"{turn['content']}{place}"} for place, turn in enumerate(TALK)]
    write_lines(tmp_path / "talks.jsonl", [{"messages": TALK}, {"messages": other}])
    served[1]["2"] = REFUSALS["cut by a filter"]
    words = ["--model", "m", "--backend", "openai", "--url", served[0], "--data", tmp_path / "talks.jsonl"]
    call(dialogue.cli, *words, "--out", tmp_path / "out", "--max-refused", "1")
    found = results(tmp_path / "out/m/talks")
    assert (found["n"], found["refused"], found["cut_short"]) == (1, 1, 0)
