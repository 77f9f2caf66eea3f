"""tuneyard eval suite against a server that says known things, and on a tiny model, in this process."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from testing.tiny import write_adapter
from tests.cli import scoring
from tests.cli.scoring import even_rows
from tests.conftest import ROOT
from tests.exams import HEAD, write_exam
from tests.json_files import read_json, write_lines
from tests.messages import printed_line, raises
from tests.runs_cut import tree
from tests.serving import answering
from tests.tables import table_with
from tuneyard.core.errors import ContentError, RequestError
from tuneyard.eval import dialogue, nli, text
from tuneyard.eval.cmmlu import __main__ as cmmlu
from tuneyard.eval.models import load as loading
from tuneyard.eval.qa import __main__ as qa
from tuneyard.eval.suite import cli

SUMS = [
    {"question": "1 + 1?", "answer": "2", "type": "reasoning"},
    {"question": "Capital of France?", "answer": "Paris", "type": "factual"},
    {"question": "Capital of Peru?", "answer": "Lima", "type": "factual"},
]
PROBES = [
    {
        "messages": [
            {"role": "user", "content": "My cat is called Momo."},
            {"role": "assistant", "content": "Hello Momo."},
            {"role": "user", "content": "What is its name?"},
            {"role": "assistant", "content": "Momo."},
        ]
    }
] * 2
NLI = even_rows(6)
SUITE = {
    "asked": {"command": "qa", "data": "sums.jsonl", "max-new-tokens": 8},
    "talks": {"command": "dialogue", "data": "talks.jsonl", "max-new-tokens": 8},
    "even": {"command": "nli", "data": "even.jsonl", "limit": 4},
    "cmmlu": {"command": "cmmlu", "data": "exams", "subjects": "anatomy,logical", "shots": 1},
    "texts": {"command": "text", "data": "sums.jsonl", "max_new_tokens": 8, "rouge": True},
}
pytestmark = pytest.mark.usefixtures("unrendered")
ALONE = {"asked": qa, "talks": dialogue, "even": nli, "cmmlu": cmmlu, "texts": text}


@pytest.fixture
def suite_folder(tmp_path: Path) -> Path:
    """A folder with a suite's data beside its file."""
    folder = tmp_path / "mine"
    for name in ("anatomy", "logical"):
        exam = HEAD + "".join(f"{n},{name} {n}?,a,b,c,d,{'ABCD'[n]}\n" for n in range(3))
        write_exam(folder / "exams", name, exam, exam)
    for name, rows in (("sums", SUMS), ("talks", PROBES), ("even", NLI)):
        write_lines(folder / f"{name}.jsonl", rows)
    return folder


def call(folder: Path, suite: object, *arguments: object) -> Path:
    (folder / "suite.yaml").write_text(
        suite if isinstance(suite, str) else yaml.safe_dump(suite, sort_keys=False)
    )
    out = folder / "out"
    scoring.call(cli, folder / "suite.yaml", "--out", out, *arguments)
    return out


def told(out: Path) -> dict:
    return read_json(out / "table.json")["steps"]


def test_figures_of_known_answers_stand_in_one_table(suite_folder: Path, capsys) -> None:
    said = {"1 + 1?": "2", "Capital of France?": "Paris.", "What is its name?": "Momo"}
    parts = {name: SUITE[name] for name in ("asked", "talks")}
    with answering(lambda asked: said.get(asked, "no idea")) as url:
        out = call(suite_folder, parts, "--model", "org/m", "--backend", "openai", "--url", url)
    shown = capsys.readouterr().out
    steps = told(out)
    found = {name: one["m"]["value"] for name, one in steps["asked"].items()}
    assert found["exact_match"] == pytest.approx(2 / 3)
    assert found["accuracy"] == found["exact_match"]
    assert found["factual, exact_match"] == 0.5
    assert found["reasoning, exact_match"] == 1
    assert steps["asked"]["exact_match"]["m"]["n"] == 3
    assert steps["talks"]["carry_over"]["m"]["value"] == 1  # "momo" was said before
    table = table_with(shown, "m")
    cells = [table.cell("asked: factual, exact_match", column) for column in ("n", "m")]
    assert cells == ["2", "0.5 (0.0945 to 0.905)"]
    page = (out / "report.html").read_text(encoding="utf-8").replace("<wbr>", "")
    assert "<caption><span>All steps.</span></caption>" in page
    assert "asked: factual, exact_match" in page
    written = table_with((out / "table.md").read_text(encoding="utf-8"), "m")
    assert written.cell("asked: factual, exact_match", "m") == "0.5 (0.0945 to 0.905)"


def test_each_step_is_what_its_command_alone_finds_and_the_model_is_loaded_once(
    suite_folder: Path, sampling_model: Callable[..., Path], monkeypatch
) -> None:
    loaded, model = [], sampling_model(temperature=2.0)
    suite = {**SUITE, "asked": {**SUITE["asked"], "preset": "document"}}  # one step draws its answers
    load = loading.load_model
    monkeypatch.setattr(loading, "load_model", lambda *given: loaded.append(given) or load(*given))
    out = call(suite_folder, suite, "--model", model)
    assert len(loaded) == 1
    assert read_json(out / "even/base/even/results.json")["n"] == 4
    for name, options in suite.items():
        given = ["--model", model, "--out", suite_folder / "alone" / name]
        for key, value in options.items():
            if key != "command":
                value = suite_folder / value if key == "data" else value
                given += [f"--{key}"] if value is True else [f"--{key}", value]
        scoring.call(ALONE[name].cli, *given)
        for path in (suite_folder / "alone" / name / "base").glob("*/predictions.jsonl"):
            own = out / path.relative_to(suite_folder / "alone")
            assert own.read_bytes() == path.read_bytes(), name
            results, other = (read_json(p.with_name("results.json")) for p in (own, path))
            assert results.pop("command").startswith("tuneyard eval suite"), name
            other.pop("command")
            assert results == other, name
    assert list(told(out)["cmmlu"]) == ["accuracy, average over subjects"]
    sets = read_json(out / "table.json")
    assert list(sets["datasets"]) == ["asked", "even", "cmmlu/anatomy", "cmmlu/logical"]
    assert sets["mean"] is None  # different tasks have none
    assert not any(
        one["decided_by"] or "the one on mean" in one["verdict"] for one in sets["datasets"].values()
    )


def test_steps_without_right_and_wrong_have_a_table_alone(suite_folder: Path, tiny_model: Path) -> None:
    out = call(suite_folder, {"texts": SUITE["texts"]}, "--model", tiny_model, "--limit", "1")
    assert told(out)["texts"]["bleu"]["base"]["ci95"] is None  # one text says nothing of others
    printed_line(
        (out / "table.md").read_text(encoding="utf-8"), "texts: perplexity", "(too few rows for an interval)"
    )
    assert not (out / "report.html").exists()


def test_a_step_whose_answers_hold_nothing_to_measure_has_a_row_that_says_so(suite_folder: Path) -> None:
    with answering(lambda _: "") as url:
        given = ("--model", "org/m", "--backend", "openai", "--url", url)
        out = call(suite_folder, {"talks": SUITE["talks"]}, *given)
    assert told(out) == {"talks": {}}
    printed_line((out / "table.md").read_text(encoding="utf-8"), "| talks", "nothing to measure")


def test_a_finished_suite_is_gone_on_with_and_a_changed_one_is_not(suite_folder, tiny_model, capsys) -> None:
    parts = {name: SUITE[name] for name in ("asked", "even")}
    models = ("--model", tiny_model, "--adapter", write_adapter(suite_folder / "a"))
    out = call(suite_folder, parts, *models)
    whole = tree(out)
    capsys.readouterr()
    call(suite_folder, parts, *models)
    assert "out/table.md: up to date" in capsys.readouterr().out
    with raises(RequestError, "even", "--limit", "--force"):
        call(suite_folder, parts, *models, "--limit", 2)
    with raises(RequestError, "asked", "--force"):
        call(suite_folder, {"even": parts["even"]}, *models)
    (out / "even/base/even/results.json").unlink()
    call(suite_folder, parts, *models, "--resume")
    assert "base  sums  done before" in capsys.readouterr().out
    assert tree(out) == whole
    with raises(RequestError, "out/even"):
        call(suite_folder, {**parts, "even": {**parts["even"], "variants": "none"}}, *models, "--resume")


@pytest.mark.parametrize(
    ("suite", "facts"),
    [
        ("a: {command: quiz}", "quiz; suite.yaml:1; a; command"),
        ("a: 3", "suite.yaml:1; a; command; 3"),
        ("- a", ""),
        (
            "a: {command: qa, metric: x}",
            "suite.yaml:1; a; metric",
        ),
        ("a: {command: text, rogue: true}", "--rouge; a; rogue"),
        ("\na: {command: nli, mode: guess}", "--mode; guess; suite.yaml:2; a"),
        ("a: {command: qa, max-new-tokens: 0}", "--max-new-tokens; a"),
        ("a: {command: qa, model: x}", "a; model"),
        ("a: {command: qa, think: true}", "a; think; eval.qa"),
        ("a: {command: text, rouge: 1}", "a; rouge; 1"),
        ("a: {command: qa, data: }", "a; data"),
        ("../a: {command: qa}", "../a"),
        ("a: {command: qa}\na: {command: nli}", "a; suite.yaml:2"),
        ("{}", ""),
    ],
)
def test_a_wrong_suite_is_refused_before_a_model_is_loaded(
    suite_folder: Path, suite: str, facts: str
) -> None:
    with raises(ContentError, facts):
        call(suite_folder, suite, "--model", "no/such-model")
    assert not (suite_folder / "out").exists()


def test_every_wrong_step_is_named(suite_folder: Path) -> None:
    with pytest.raises(ContentError) as caught:
        call(suite_folder, "a: {command: x}\nb: {command: y}\n", "--model", "no/such-model")
    assert [line.split(": ")[1] for line in str(caught.value).splitlines()] == ["a", "b"]


def test_a_step_that_cannot_run_is_refused_beforehand(suite_folder: Path) -> None:
    suite = {"asked": SUITE["asked"], "exam": {"command": "qa", "data": "nowhere.jsonl"}}
    with raises(RequestError, "suite.yaml:5", "exam", "nowhere.jsonl", "--skip"):
        call(suite_folder, suite, "--model", "no/such-model")
    assert not (suite_folder / "out").exists()
    with raises(RequestError, "no/such-model"):  # now it goes as far as the model
        call(suite_folder, suite, "--model", "no/such-model", "--skip", "exam")
    assert not (suite_folder / "out").exists()
    with raises(RequestError, "--skip quiz"):
        call(suite_folder, suite, "--model", "no/such-model", "--skip", "quiz")


def test_the_bundled_suite_runs(tmp_path: Path, tiny_model: Path) -> None:
    given = [ROOT / "eval/suites/toolkit.yaml", "--model", tiny_model, "--out", tmp_path / "out"]
    scoring.call(cli, *given, "--skip", "cmmlu", "--limit", "1")
    assert {"questions", "texts"} <= told(tmp_path / "out").keys()


WISHES = {
    "a parser where labels are compared": (
        {"command": "nli", "mode": "choice", "parser": "substring"},
        "--parser",
    ),
    "a length where labels are compared": ({"command": "nli", "max_new_tokens": 8}, "--max-new-tokens"),
    "the default, which is given": ({"command": "nli", "mode": "generate", "variants": "all"}, "--variants"),
    "a length without answers": (
        {"command": "text", "generate": False, "max_new_tokens": 8},
        "--max-new-tokens",
    ),
    "a preset without answers": ({"command": "text", "generate": False, "preset": "document"}, "--preset"),
    "a tokenizer without ROUGE": ({"command": "text", "tokenizer": "jieba"}, "--tokenizer"),
    "a seed without a ratio": ({"command": "text", "seed": 3}, "--seed"),
    "ROUGE of plain texts": ({"command": "text", "data": "plain.jsonl", "rouge": True}, "--rouge"),
    "a length of plain texts": (
        {"command": "text", "data": "plain.jsonl", "max-new-tokens": 4},
        "--max-new-tokens",
    ),
}


@pytest.mark.parametrize(("options", "flag"), WISHES.values(), ids=WISHES)
def test_a_suite_refuses_what_its_commands_refuse(suite_folder: Path, options: dict, flag: str) -> None:
    write_lines(suite_folder / "plain.jsonl", [{"text": "One."}, {"text": "Two."}])
    steps = {"first": SUITE["even"], "wish": {"data": "even.jsonl", **options}}
    with raises(RequestError, "suite.yaml:5", "wish", flag, "--skip"):
        call(suite_folder, steps, "--model", "no-model")
    assert not (suite_folder / "out").exists()


def test_options_of_all_steps_are_refused_by_a_step_that_has_no_use_for_them(suite_folder: Path) -> None:
    for options in (["--template", "qwen"], ["--bos"]):
        with raises(RequestError, "suite.yaml:1", "cmmlu", options[0], "--chat"):
            call(suite_folder, {"cmmlu": SUITE["cmmlu"]}, "--model", "no-model", *options)
