"""What is mapped reaches each output, or an error names the output that leaves it out."""

import itertools
import json

import pytest
from PIL import Image

from tests.messages import printed, raises
from tests.unit.compiler.conftest import Bench, exchange
from tuneyard.compiler.publish.report import file_lines
from tuneyard.compiler.spec.load import load_spec
from tuneyard.compiler.write.entries import entries_of
from tuneyard.core.errors import ContentError

TEMPLATES = {
    "alpaca": 'format: alpaca, instruction: "{question}", output: "{answer}"',
    "alpaca-system": 'format: alpaca, instruction: "{question}", output: "{answer}", system: "{system}"',
    "sharegpt": 'format: sharegpt, user: "{question}", assistant: "{answer}"',
    "messages": 'format: messages, user: "{question}", assistant: "{answer}"',
    "messages-system": 'format: messages, user: "{question}", assistant: "{answer}", system: "{system}"',
    "text": 'format: text, text: "{question} {answer}"',
    "text-system": 'format: text, text: "{system} {question} {answer}"',
    "text-unread-system": 'format: text, text: "{question} {answer}", system: "{system}"',
}
TURNS = {
    "alpaca": "format: alpaca",
    "alpaca-history": "format: alpaca, turns: history",
    "alpaca-system": 'format: alpaca, system: "{system}"',
    "sharegpt": "format: sharegpt",
    "sharegpt-system": 'format: sharegpt, system: "{system}"',
    "messages": "format: messages",
    "messages-system": 'format: messages, system: "{system}"',
    "text": 'format: text, roles: {user: "U: {}", assistant: "A: {}"}',
    "text-roles": 'format: text, roles: {system: "S: {}", user: "U: {}", assistant: "A: {}"}',
}
TOOLS = [{"name": "MAPPED_TOOL", "description": "Adds.", "parameters": {"type": "object", "properties": {}}}]
MAPPED = {
    "system": ("{names: [persona], is: extra}", "persona", "MAPPED SYSTEM"),
    "tools": ("{names: [functions], is: tools}", "functions", json.dumps(TOOLS)),
}
MARKS = {"system": "MAPPED SYSTEM", "tools": "MAPPED_TOOL"}


def spec_of(
    bench: Bench, turns: bool, formats: tuple[str, ...], mapped: tuple[str, ...], more: str = ""
) -> str:
    """Write a spec with these columns and one output for each format; return its path."""
    columns = ["turns: {names: [talk], is: turns}"] if turns else ["question: [q]", "answer: [a]"]
    columns += [f"{name}: {MAPPED[name][0]}" for name in mapped]
    forms = TURNS if turns else TEMPLATES
    outputs = [f"{{dataset: d{n}, file: f{n}.jsonl, {forms[name]}}}" for n, name in enumerate(formats)]
    text = f"about: a\ncolumns: {{{', '.join(columns)}}}\nwrite: [{', '.join(outputs)}]\n{more}"
    return str(bench.write("s.yaml", text))


def row_of(turns: bool, mapped: tuple[str, ...]) -> dict:
    talk = exchange("Why?", "So.")
    row = {"talk": talk} if turns else {"q": "Why?", "a": "So."}
    return row | {MAPPED[name][1]: MAPPED[name][2] for name in mapped}


def combinations() -> list[tuple[bool, tuple[str, ...], tuple[str, ...]]]:
    """Return every pair of outputs with every set of mapped columns, of templates and of turns."""
    found = []
    for turns, forms in ((False, TEMPLATES), (True, TURNS)):
        for pair in itertools.combinations_with_replacement(forms, 2):
            needs_system = any("-system" in name for name in pair)
            choices = [("system",), ("tools",), ("system", "tools")]
            found += [(turns, pair, each) for each in choices if "system" in each or not needs_system]
    return found


def test_what_is_mapped_is_written_or_the_output_is_named(bench):
    written = refused = 0
    for turns, pair, mapped in combinations():
        source = bench.rows("t.jsonl", [row_of(turns, mapped)])
        report = bench.compile(spec_of(bench, turns, pair, mapped), source, force=True)
        case = (turns, pair, mapped, [problem.line() for problem in report.problems.errors])
        assert {problem.code for problem in report.problems.errors} <= {"E108"}, case
        if report.failed:
            refused += 1
            for number, name in enumerate(pair):
                holds_all = all(_holds(name, column) for column in mapped)
                named = any(f"f{number}.jsonl" in problem.message for problem in report.problems.errors)
                assert named != holds_all, case
        else:
            written += 1
            for number in range(2):
                (record,) = bench.records(f"f{number}.jsonl")
                text = json.dumps(record)
                assert all(text.count(MARKS[column]) == 1 for column in mapped), case
                _assert_read(bench, number, record, mapped)
    assert written > 40 and refused > 100


def _holds(name: str, column: str) -> bool:
    """Whether an output of this test holds a mapped column, as docs/compiler.md has it."""
    if name.startswith(("sharegpt", "messages")):
        return True
    return column == "system" and name in ("alpaca-system", "text-system", "text-roles")


def _assert_read(bench: Bench, number: int, record: dict, mapped: tuple[str, ...]) -> None:
    """Hold the registry entry against the record: what is written is what LLaMA-Factory reads."""
    spec = load_spec(str(bench.folder / "s.yaml"))
    entry = entries_of(spec)[f"d{number}"]
    columns = entry["columns"]
    for name in mapped:
        if name in record:
            assert columns[name] == name


@pytest.mark.parametrize("turns", [False, True])
def test_a_message_names_the_output_and_the_edit(bench, turns):
    spec = spec_of(bench, turns, ("sharegpt", "alpaca"), ("system", "tools"))
    report = bench.compile_rows(spec, [row_of(turns, ("system", "tools"))])
    messages = {problem.field: (problem.message, problem.hint) for problem in report.problems.errors}
    assert set(messages) == {"persona", "functions"}
    printed(messages["persona"][0], "system", "1 of 1", "f1.jsonl")
    assert messages["persona"][1].startswith('add `system: "{system}"` to that output')
    assert "write sharegpt or messages there" in messages["functions"][1]


@pytest.mark.parametrize("name", ["system", "persona"])
def test_a_spec_may_ignore_it_for_the_outputs_that_cannot_hold_it(bench, name):
    spec = spec_of(bench, False, ("sharegpt", "text"), ("system",), f"ignore: [{name}]\n")
    report = bench.compile_rows(spec, [row_of(False, ("system",))])
    assert not report.failed and report.unused.lines(1) == ["ignored: persona (1 of 1)"]
    assert bench.first("f0.jsonl")["system"] == "MAPPED SYSTEM"


def test_empty_values_are_nothing_to_lose(bench):
    spec = spec_of(bench, False, ("sharegpt", "text"), ("system", "tools"))
    rows = [{"q": "a", "a": "b", "persona": "", "functions": "[]"}, {"q": "c", "a": "d"}]
    assert not bench.compile_rows(spec, rows).failed


def test_rows_that_differ_in_their_system_text_are_no_duplicates(bench):
    spec = spec_of(bench, False, ("messages",), ("system",), "drop_duplicates: true\n")
    rows = [{"q": "a", "a": "b", "persona": text} for text in ("One.", "Two.", "Two.")]
    report = bench.compile_rows(spec, rows)
    assert (report.kept, report.dropped["duplicate"]) == (2, 1)


def test_a_system_text_of_the_output_takes_the_place_of_none(bench):
    """An output of turns with a `system` of its own refuses rows with another, unless they are ignored."""
    for form in ("sharegpt", "messages"):
        columns = "columns: {turns: {names: [talk], is: turns}}"
        text = f"{columns}\nwrite: [{{dataset: d, file: d.jsonl, format: {form}, system: Own}}]\n"
        row = row_of(True, ())
        with_turn = {"talk": [{"role": "system", "content": "Theirs"}, *row["talk"]]}
        spec = bench.write("s.yaml", f"about: a\n{text}")
        report = bench.compile_rows(spec, [row, with_turn], force=True)
        assert [(p.code, "d.jsonl" in p.message) for p in report.problems.errors] == [("E107", True)]
        spec = bench.write("s.yaml", f"about: a\nignore: [system]\n{text}")
        assert not bench.compile(spec, bench.folder / "train.jsonl", force=True).failed
        assert ["Own" in json.dumps(record) for record in bench.records("d.jsonl")] == [True, True]
        assert "Theirs" not in json.dumps(bench.records("d.jsonl"))


def test_a_column_of_tools_goes_by_that_name(bench):
    text = "about: a\ncolumns: {q: [q], calls: {names: [tools], is: tools}}\n"
    spec = bench.write("s.yaml", text + 'write: [{file: d.jsonl, format: sharegpt, user: "{q}"}]\n')
    with raises(ContentError, "is: tools", "tools", "calls"):
        load_spec(str(spec))


BESIDE = {
    "images": ("images: {names: [pics], is: images, default: []}", {"pics": ["MAPPED.png"]}),
    "kto": ("good: {names: [good], is: kto}", {"good": True}),
    "pair": (
        "chosen: {names: [chosen], is: chosen}, rejected: {names: [rejected], is: rejected}",
        {"chosen": "MAPPED A", "rejected": "MAPPED B"},
    ),
    "history": ("history: {names: [before], is: history}", {"before": [["MAPPED Q", "MAPPED A"]]}),
    "kept": ("topic: {names: [topic], is: any}", {"topic": "MAPPED"}),
}


@pytest.mark.parametrize("kind", BESIDE)
@pytest.mark.parametrize(
    ("turns", "form"), [*((False, form) for form in TEMPLATES), *((True, form) for form in TURNS)]
)
def test_what_stands_beside_the_texts_is_written_refused_or_counted(bench, turns, form, kind):
    column, values = BESIDE[kind]
    columns = ["turns: {names: [talk], is: turns}"] if turns else ["question: [q]", "answer: [a]"]
    columns += [f"system: {MAPPED['system'][0]}"] if "system" in form else []
    output = (TURNS if turns else TEMPLATES)[form]
    if kind == "pair":
        output = output.replace(', output: "{answer}"', "").replace(', assistant: "{answer}"', "")
        columns = [each for each in columns if each != "answer: [a]" or "{answer}" in output]
    text = f"columns: {{{', '.join([*columns, column])}}}\nwrite: [{{dataset: d, file: d.jsonl, {output}}}]\n"
    spec = bench.write("s.yaml", f"about: a\n{text}")
    Image.new("RGB", (8, 8)).save(bench.folder / "MAPPED.png")
    row = row_of(turns, ()) | values
    if turns and kind == "pair":
        row["talk"] = row["talk"][:1]
    try:
        load_spec(str(spec))
    except ContentError as error:
        assert "column" in str(error)
        return
    other = {"good": False} if kind == "kto" else {}
    report = bench.compile_rows(spec, [row, row | other])
    assert not report.problems.errors
    if kind == "kept":
        assert report.unused.rows == {"topic": 2}
        return
    record = json.dumps(bench.first("d.jsonl"))
    assert all(value in record for value in _texts(list(values.values())))


def _texts(value: object) -> list[str]:
    """Return every text in nested lists; a truth value is the text that JSON has for it."""
    if isinstance(value, list):
        return [text for item in value for text in _texts(item)]
    return [value if isinstance(value, str) else json.dumps(value)]


def test_a_file_of_all_splits_is_named_once(bench):
    lines = [
        "like: qa",
        "split: {eval: 0.5}",
        "write:",
        "- {dataset: 'own_{split}', file: 'own-{split}.json'}",
        "- {file: all.jsonl, format: alpaca, instruction: '{question}', output: '{answer}'}",
    ]
    spec = "\n".join(lines)
    rows = [{"question": f"What is {number}?", "answer": f"{number}"} for number in range(4)]
    report = bench.compile(spec, bench.rows("a.json", rows))
    (files, *_) = file_lines(report, bench.folder)
    names = [path.rpartition("/")[2] for path in files.removeprefix("files: ").split(", ")]
    assert names == ["own-train.json", "own-eval.json", "all.jsonl"]
