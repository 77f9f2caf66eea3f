"""What verify knows without LLaMA-Factory: entries, the records of a file as turns, the places of traps."""

import json
from collections import Counter

import pytest

from tests.cli.scoring import invoke
from tests.messages import raises
from tests.unit.compiler.conftest import json_lines
from tuneyard.compiler.cli import cli
from tuneyard.compiler.lint.fingerprints import quantiles
from tuneyard.compiler.verify.audit import Audit
from tuneyard.compiler.verify.dataset import datasets_of
from tuneyard.compiler.verify.expect import Expected, column_problems, entry_problems
from tuneyard.compiler.verify.recipe_file import read_settings
from tuneyard.compiler.verify.report import as_json, histogram, lines
from tuneyard.compiler.verify.verdict import Verdict
from tuneyard.core.errors import ContentError, Problem, ProblemsError, RequestError
from tuneyard.core.language.message import translated
from tuneyard.core.records import ChatMessage, Example, format_of_entry

ALPACA = {"file_name": "x", "columns": {"prompt": "instruction", "query": "input", "response": "output"}}
TAGS = {
    "role_tag": "from", "content_tag": "value", "user_tag": "human", "assistant_tag": "gpt",
    "observation_tag": "observation", "function_tag": "function_call", "system_tag": "system",
}  # fmt: skip
SHAREGPT = {
    "file_name": "x",
    "formatting": "sharegpt",
    "columns": {"messages": "c", "system": "s"},
    "tags": TAGS,
}


def found(entry, keys=None):
    """Return (code, field, way out) of everything that is wrong with an entry."""
    meaning = format_of_entry(entry)
    problems = [*entry_problems("p", entry, meaning), *(column_problems("p", meaning, keys) if keys else [])]
    return [(problem.code, problem.field, problem.hint) for problem in problems]


@pytest.mark.parametrize(
    ("entry", "keys", "expected"),
    [
        (ALPACA, {"instruction", "input", "output", "idx"}, []),
        ({"file_name": "x"}, {"instruction", "input", "output"}, []),
        (SHAREGPT, {"c", "s"}, []),
        (
            ALPACA | {"columns": {"prompt": "instruction", "query": "input", "response": "ouput"}},
            {"instruction", "input", "output"},
            [("E403", "columns.response", 'did you mean "output"?')],
        ),
        (
            ALPACA | {"columns": {"prompt": "instruction", "reponse": "output"}},
            None,
            [
                ("E401", "columns.reponse", 'did you mean "response"?'),
                ("E402", "columns", "add 'response': its column"),
            ],
        ),
        (
            ALPACA | {"columns": {"prompt": "instruction", "query": "instruction", "response": "output"}},
            None,
            [("E401", "columns.query", "take it out")],
        ),
        (
            ALPACA | {"ranking": "true", "num_samples": "10"},
            None,
            [("E401", "ranking", "without quotes"), ("E401", "num_samples", "without quotes")],
        ),
        (ALPACA | {"formating": "sharegpt"}, None, [("E401", "formating", 'did you mean "formatting"?')]),
        (ALPACA | {"formatting": "sharegtp"}, None, [("E401", "formatting", 'did you mean "sharegpt"?')]),
        (ALPACA | {"formatting": "openai"}, None, [("E401", "formatting", "use sharegpt with tags")]),
        (ALPACA | {"columns": ["x"]}, None, [("E401", "columns", ""), *[("E402", "columns", "")] * 2]),
        (
            SHAREGPT | {"tags": dict(list(TAGS.items())[:4])},  # those that every conversation needs
            None,
            [],
        ),
        (
            SHAREGPT | {"tags": {name: tag for name, tag in TAGS.items() if name != "assistant_tag"}},
            None,
            [("E402", "tags", "add 'assistant_tag': 'gpt'")],
        ),
    ],
)
def test_entries(entry, keys, expected):
    got = found(entry, keys)
    assert [item[:2] for item in got] == [item[:2] for item in expected]
    assert all(hint in item[2] for item, (_, _, hint) in zip(got, expected, strict=True))


def read(bench, name, content, entry=ALPACA):
    """Read a file as records; returns (places and talks or reasons, problems of the whole file)."""
    expected = Expected(bench.write(name, content), format_of_entry(entry))
    records = [(place, example) for place, _, example in expected.records()]
    return records, [(p.code, p.place.rsplit("/", 1)[-1], p.field) for p, _ in expected.problems]


def test_alpaca_records_as_turns(bench):
    rows = [
        {"instruction": "I", "input": "J", "output": "O"},
        {"instruction": "I", "input": "", "output": ""},
        {"instruction": "I", "input": None, "output": None},
        {"instruction": "I"},
        {"instruction": "I", "output": 3},
    ]
    content = json_lines(rows)
    records, problems = read(bench, "a.jsonl", content)
    assert [talk for _, talk in records[:2]] == [
        Example([ChatMessage("user", "I\nJ")], [ChatMessage("assistant", "O")]),
        Example([ChatMessage("user", "I")], [ChatMessage("assistant", "")]),
    ]
    assert [talk.split(",")[0] for _, talk in records[2:]] == [
        "output: found null",
        "output: missing",
        "output: found 3",
    ]
    assert [place.rsplit(":")[-1] for place, _ in records] == ["1", "2", "3", "4", "5"]
    assert problems == [("E404", "a.jsonl:5", "output")]


def test_history_and_system(bench):
    entry = {"columns": {**ALPACA["columns"], "history": "h", "system": "s"}}
    row = {"instruction": "I", "output": "O", "h": [["a", "b"]], "s": "S"}
    records, _ = read(bench, "h.jsonl", json.dumps(row), entry)
    messages = [ChatMessage("user", "a"), ChatMessage("assistant", "b"), ChatMessage("user", "I")]
    assert records[0][1] == Example(messages, [ChatMessage("assistant", "O")], "S")


def turns(*pairs):
    return [{"from": role, "value": text} for role, text in pairs]


def test_sharegpt_records_as_turns(bench):
    rows = [
        {"c": turns(("system", "S"), ("human", "a"), ("gpt", "b"))},
        {"c": turns(("human", "a"), ("function_call", "{}"), ("observation", "r"), ("gpt", "b")), "s": "S"},
        {"c": turns(("human", "a"))},
        {"c": turns(("gpt", "a"), ("human", "b"))},
        {"c": turns(("human", "a"), ("bot", "b"))},
        {"c": []},
    ]
    records, _ = read(bench, "s.json", json.dumps(rows), SHAREGPT)
    talks = [talk for _, talk in records]
    assert talks[0] == Example([ChatMessage("user", "a", 2)], [ChatMessage("assistant", "b", 3)], "S")
    assert talks[1].system == "S" and [message.role for message in talks[1].trained_messages] == [
        "user", "function", "observation", "assistant",
    ]  # fmt: skip
    assert "1 turn, expected an even number" in talks[2]
    assert 'turn 1 is "gpt", expected "human"' in talks[3]
    assert "turn 2" in talks[4] and "expected one of human, gpt" in talks[4]
    assert "no turns" in talks[5]


def test_what_its_loader_stumbles_over(bench):
    rows = '{"instruction": "I", "output": "O"}\n'
    assert read(bench, "bom.jsonl", "\ufeff" + rows)[1] == [("E404", "bom.jsonl:1", "")]
    with raises(ProblemsError, "cut.json:3", "E003", "1"):
        read(bench, "cut.json", f"[{rows},\n" + rows[:10])


def test_names(bench):
    bench.write("out/dataset_info.json", json.dumps({"mine": ALPACA}))
    assert datasets_of("mine", bench.out) == ["mine"]
    with raises(RequestError, "mime", "mine"):
        datasets_of("mime", bench.out)


def test_recipe_under_options(bench):
    recipe = bench.write("r.yaml", "template: qwen\ncutoff_len: 100\n")
    settings, _ = read_settings(recipe, {"cutoff_len": 20, "template": None})
    assert settings == {"template": "qwen", "cutoff_len": 20}
    with raises(ContentError, "list.yaml"):
        read_settings(bench.write("list.yaml", "- a\n"), {})


def test_lengths_by_hand():
    lengths = Counter({10: 2, 12: 1, 40: 1})
    assert quantiles(lengths) == {"min": 10, "median": 10, "p95": 40, "max": 40}
    assert histogram(lengths) == [(low, low + 3, {10: 3, 38: 1}.get(low, 0)) for low in range(10, 39, 4)]
    assert quantiles(Counter()) == {} and histogram(Counter()) == []
    assert histogram(Counter({5: 3})) == [(5, 5, 3)]


def test_the_report():
    example = [("ask ", False), ("yes", True)]
    audit = Audit(Counter({10: 1}), rows=1, seen=10, learned=2, example=example)
    verdict = Verdict("set", records=2, loaded=1, same=1, audit=audit, cutoff=16)
    verdict.add(Problem("E406", "f:2", "gone"))
    text = "\n".join(map(translated, lines(verdict, every=False)))
    assert verdict.failed and "f:2: E406: gone" in text and "1 problem (E406 1)" in text
    assert "10 tokens, 2 of them loss tokens (20.0%)" in text and text.endswith("ask ⟦yes⟧")
    report = as_json(verdict)
    assert report["failed"] and report["tokens"]["learned"] == 2 and json.dumps(report)
    clean = Verdict("set", records=1, loaded=1, same=1, not_checked=["lengths"])
    assert not clean.failed and list(lines(clean, every=False))[-1] == "not checked: lengths"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--model", "models/demo-bas"],
            '--model models/demo-bas: no such folder; did you mean "models/demo-base"?',
        ),
        (["--model", "models"], "--model models: no tokenizer in it"),
        (
            ["--template", "qwen"],
            "--template needs the model's tokenizer, and no model is named: add --model",
        ),
        (["--cutoff-len", "20"], "--cutoff-len needs the model's tokenizer"),
        (
            ["--recipe", "mine.yaml", "--template", "qwen"],
            "--template needs the model's tokenizer, and me/model is no model folder here",
        ),
    ],
)
def test_an_option_that_needs_a_tokenizer_is_refused_without_one(working_folder, words, message) -> None:
    (working_folder / "models/demo-base").mkdir(parents=True)
    (working_folder / "mine.yaml").write_text("model_name_or_path: me/model\n")
    ended = invoke(cli, "verify", "demo_rte", *words)
    assert isinstance(ended.exception, RequestError)
    assert str(ended.exception).startswith(message)


def test_the_last_line_counts_the_errors_of_each_dataset(working_folder, monkeypatch) -> None:
    def two_problems(name: str, *_arguments: object) -> Verdict:
        return Verdict(name, records=3, loaded=1, same=1, counts=Counter({"E406": 2, "W409": 1}))

    monkeypatch.setattr("tuneyard.compiler.verify.dataset.datasets_of", lambda *_: ["one", "two"])
    monkeypatch.setattr("tuneyard.compiler.verify.dataset.verify", two_problems)
    ended = invoke(cli, "verify", "set")
    assert isinstance(ended.exception, ContentError)
    assert str(ended.exception).startswith("one has 2 problems, two has 2 problems")


@pytest.mark.parametrize("model", [["--model", "."], []])
def test_what_an_explicit_model_leaves_unchecked_is_an_error(working_folder, monkeypatch, model) -> None:
    (working_folder / "tokenizer.json").touch()
    verdict = Verdict("set", records=1, loaded=1, same=1, not_checked=["rows with media"])
    monkeypatch.setattr("tuneyard.compiler.verify.dataset.datasets_of", lambda *_: ["set"])
    monkeypatch.setattr("tuneyard.compiler.verify.dataset.verify", lambda *_, **__: verdict)
    ended = invoke(cli, "verify", "set", *model)
    assert "not checked: rows with media" in ended.stdout
    if model:
        assert isinstance(ended.exception, RequestError)
    else:
        assert ended.exit_code == 0
