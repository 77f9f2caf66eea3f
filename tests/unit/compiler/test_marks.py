"""A marked answer is never learned, whatever the format: it is refused, or it is no answer that is learned.

`MARKED` says so of each spelling of a mark, each form of turns and each bundled spec that reads turns. The
labels of LLaMA-Factory itself are looked at in tests/integration/test_masked_answers.py.
"""

import json

import pytest

from tests.messages import printed
from tests.unit.compiler.conftest import Bench, as_parquet, exchange
from tuneyard.compiler.publish.report import report_as_json
from tuneyard.compiler.spec.file import known_specs
from tuneyard.compiler.spec.load import load_spec
from tuneyard.compiler.write.entries import entries_of
from tuneyard.core.datasets import read_records

MASKING = [
    ("weight", 0), ("weight", "0"), ("weight", 0.5), ("weight", 2), ("loss", False), ("Loss", "False"),
    ("train", "no"), ("lossWeight", 0), ("loss-weight", "0.0"), ("mask", 1), ("mask", "true"),
    ("is_masked", "yes"), ("mask", [1, 1, 0]),
    ("train_detail", [{"begin_offset": 0, "end_offset": 4, "train": False}]),
]  # fmt: skip
LEARNING = [
    ("weight", 1), ("weight", "1"), ("weight", None), ("weight", ""), ("loss", "true"), ("train", 1),
    ("mask", 0), ("mask", "false"), ("learn", "yes"), ("loss", 0.342), ("loss", "2.5"),
]  # fmt: skip
FORMS = {"sharegpt": ("from", "value", "human", "gpt"), "openai": ("role", "content", "user", "assistant")}
EXTRA_SPECS = ("first", "history")


def test_the_fix_names_the_spec_of_the_user(bench: Bench) -> None:
    """`like: own` is no way to a spec that is given by its path."""
    columns = "columns: {turns: {names: [messages], is: turns}}\n"
    write = "write: [{dataset: own, file: own.json, format: messages}]\n"
    spec = bench.write("own.yaml", f"about: a\n{columns}{write}")
    row = {"messages": talk("openai", {"text": "One.", "weight": 0})}
    (problem,) = bench.compile_rows(spec, [row]).problems.errors
    assert problem.hint.endswith("`ignore: [weight]` in the spec own")
    rows = bench.rows("u.jsonl", [{"messages": talk("openai", {"text": "One."}), "is_correct": False}])
    (problem,) = bench.compile(spec, rows).problems.errors
    assert "in the spec own map it" in problem.hint and "`like" not in problem.hint


def talk(form: str, *answers: dict[str, object]) -> list[dict[str, object]]:
    """Return a conversation with a question before each answer; an answer is its text and its marks."""
    role, content, user, assistant = FORMS[form]
    turns: list[dict[str, object]] = []
    for number, answer in enumerate(answers):
        marks = {key: value for key, value in answer.items() if key != "text"}
        turns.append({role: user, content: f"Question {number}?"})
        turns.append({role: assistant, content: answer["text"], **marks})
    return turns


def shapes(spec_name: str, form: str, turns: list[dict], number: int) -> list[dict]:
    """Return the rows in which a spec reads a conversation: as one, as the answers of a pair, …"""
    if spec_name == "kto":
        return [{"messages": turns, "kto_tag": number % 2 == 0}]
    if spec_name in ("defect-split", "defect-text"):
        return [{"subtype": "fan", "text": turns}]
    if spec_name != "pairs-chat":
        return [{"messages": turns}]
    role, content, user, assistant = FORMS[form]
    *before, last = turns
    other = {role: assistant, content: f"Another answer {number}."}
    ends = {role: user, content: f"And then {number}?"}
    rows = [{"messages": [*turns, ends], "chosen": other, "rejected": f"A third {number}."}]
    for side, opposite in (("chosen", "rejected"), ("rejected", "chosen")):
        rows.append({"messages": before, side: last, opposite: other})
        rows.append({"messages": before, side: turns, opposite: [*before, other]})
        rows.append({"messages": before, side: [last], opposite: [other]})
    return rows


def specs_that_read_turns() -> list[str]:
    names = [name for name in known_specs() if load_spec(name).conversation_column]
    mixed = [
        name
        for name in known_specs()
        if (mix := load_spec(name).mix) and any(p.conversation_column for p in mix.sources.values())
    ]
    assert {"messages", "messages-text", "media", "tools", "kto", "pairs-chat"} < set(names) and mixed
    return [*names, *EXTRA_SPECS, "mix"]


def spec_path(bench: Bench, name: str) -> str:
    """Return a bundled spec, or one written here that makes alpaca of turns, itself or in a mixture."""
    if name not in EXTRA_SPECS and name != "mix":
        return name
    turns = "first" if name == "first" else "history"
    head = "columns: {turns: {names: [messages], is: turns}}\n"
    if name == "mix":
        head = "mix: {total: 10000, parts: {p: {share: 1, as: messages}}}\n"
    write = f"write: [{{dataset: {name}, file: {name}.jsonl, format: alpaca, turns: {turns}}}]\n"
    return str(bench.write(f"{name}.yaml", f"about: a\n{head}{write}"))


def marked_rows(name: str, form: str) -> list[dict]:
    """Return a row for each mark and each place of it; the marked answer's text has MARKED in it."""
    rows = []
    marks = [mark for mark in MASKING if form == "openai" or not isinstance(mark[1], list)]
    for number, (key, value) in enumerate(marks):
        marked = {"text": f"MARKED {number}.", key: value}
        plain = [{"text": f"Plain {number} {place}."} for place in range(3)]
        for answers in (
            [marked],
            [marked, plain[0]],
            [plain[0], marked],
            [plain[0], marked, plain[1]],
            [marked, plain[0], marked | {"text": f"MARKED {number} again."}],
        ):
            rows += shapes(name, form, talk(form, *answers), number)
    return rows


def plain_rows(name: str, form: str) -> list[dict]:
    """Return rows that pass: marks that mean "learn" on answers, and masking marks on other turns."""
    rows = []
    for number, (key, value) in enumerate(LEARNING):
        rows += shapes(name, form, talk(form, {"text": f"Good {number}.", key: value}), number)
    role, content, *_ = FORMS[form]
    for number, (key, value) in enumerate(MASKING, len(LEARNING)):
        turns = talk(form, {"text": f"Good {number}."})
        turns[0][key] = value
        system = {role: "system", content: " ", key: value}
        rows += shapes(name, form, turns, number)
        rows += shapes(name, form, [system, *talk(form, {"text": f"Good {number} too."})], number)
    return rows


def compiled(bench: Bench, name: str, rows: list[dict], **options: object):
    source = bench.rows("train.jsonl", rows)
    path = spec_path(bench, name)
    given = f"p={source}" if name == "mix" else f"train={source}"
    return bench.compile(path, given, **options)


def records_of(bench: Bench, name: str) -> list[tuple[dict, dict]]:
    """Return each record of the registered datasets of a spec, with its entry."""
    spec = load_spec(spec_path(bench, name))
    found = []
    for entry in entries_of(spec).values():
        path = bench.out / str(entry["file_name"])
        records = read_records(path) if path.exists() else []
        found += [(record, entry) for record in records]
    assert found
    return found


def learned_texts(record: dict, entry: dict) -> str:
    """Return what a record teaches by LLaMA-Factory's documented format: a rule of its own for this test."""
    columns = entry["columns"]
    if "chosen" in columns:
        return json.dumps([record["chosen"], record["rejected"]])
    if entry["formatting"] == "alpaca":
        answers = [pair[1] for pair in record.get("history", ())]
        return json.dumps([*answers, record.get("output", ""), record.get("text", "")])
    turns = record[columns["messages"]]
    if "kto_tag" in columns:
        return json.dumps(turns[-1])
    return json.dumps([turn for turn in turns if "human" not in turn.values()])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", specs_that_read_turns())
def test_a_marked_answer_is_never_learned_and_others_pass(bench, name, form):
    rows, passing = marked_rows(name, form), plain_rows(name, form)
    report = compiled(bench, name, [*rows, *passing], reject=True)
    assert not report.failed and set(report.problems.counts_of("E")) == {"E113"}
    assert report.kept >= len(passing)
    refused = {problem.place for problem in report.problems.errors}
    assert max(place.line for place in refused) <= len(rows), "marks that mean learn, and of other turns"
    teaching = [learned_texts(record, entry) for record, entry in records_of(bench, name)]
    assert "Good 0." in "".join(teaching) and "MARKED" not in "".join(teaching)


def test_the_first_exchange_alone_counts_where_it_alone_is_written(bench):
    rows = [{"messages": talk("openai", {"text": "One."}, {"text": "Two.", "weight": 0})}]
    assert not compiled(bench, "first", rows).failed
    assert compiled(bench, "history", rows).failed


def test_the_last_answer_alone_counts_in_kto_and_none_before_a_pair(bench):
    turns = talk("openai", {"text": "One.", "weight": 0}, {"text": "Two."})
    rows = [{"messages": turns, "kto_tag": tag} for tag in (True, False)]
    assert not compiled(bench, "kto", rows).failed
    ask = {"role": "user", "content": "And?"}
    assert not compiled(
        bench, "pairs-chat", [{"messages": [*turns, ask], "chosen": "a", "rejected": "b"}]
    ).failed


@pytest.mark.parametrize(
    ("marks", "turns", "ignored"),
    [
        ([{"weight": 0}, {"weight": 1}], "turn 2:", "weight"),
        ([{"weight": 1}, {"weight": 2}, {"weight": 0.5}], "turns 4, 6:", "weight"),
        ([{"weight": 0, "loss": False}], "turn 2:", "weight, loss"),
    ],
)
def test_the_turns_and_the_fix_are_named(bench, marks, turns, ignored):
    answers = [{"text": f"Answer {number}.", **mark} for number, mark in enumerate(marks)]
    (problem,) = compiled(bench, "messages", [{"messages": talk("sharegpt", *answers)}]).problems.errors
    assert (problem.code, problem.place.rsplit("/", 1)[-1]) == ("E113", "train.jsonl:1")
    assert problem.message.startswith(turns)
    printed(problem.hint, "--on-error reject", f"`ignore: [{ignored}]`", "`like: messages`")


@pytest.mark.parametrize("ignored", ["weight", "messages.weight", "Weight"])
def test_a_spec_may_ignore_a_mark(bench, ignored):
    rows = [{"messages": talk("openai", {"text": "One.", "weight": 0})}]
    spec = bench.write("mine.yaml", f"about: a\nlike: messages\nignore: [{ignored}]\nwrite: [{{}}]\n")
    report = bench.compile_rows(spec, rows)
    assert not report.failed and report.unused.rows == {}
    assert report.unused.lines(1) == ['ignored: "messages.weight" (1 of 1)']


def test_an_ignored_name_elsewhere_is_none_of_the_turns(bench):
    rows = [{"messages": talk("openai", {"text": "One.", "weight": 0})}]
    spec = "about: a\nlike: messages\nignore: [meta.weight, conversations]\nwrite: [{}]\n"
    assert bench.compile_rows(spec, rows).failed


def test_keys_inside_turns_are_counted_as_columns_are(bench):
    ann, bo = exchange("A?", "B."), exchange("C?", "D.")
    ann[0] |= {"name": "Ann", "id": 7, "empty": "", "weight": 1}
    bo[0] |= {"name": "Bo"}
    source = bench.rows("t.jsonl", [{"messages": ann}, {"messages": bo}])
    report = bench.compile("messages", source)
    counts = {"messages.name": 2, "messages.id": 1, "messages.weight": 1}
    assert report.unused.rows == counts
    assert bench.manifest("messages")["not_used"] == report_as_json(report)["not_used"] == counts


def test_keys_that_reading_takes_are_not_counted(bench):
    call = {"function": {"name": "add", "arguments": "{}"}, "id": "c1"}
    turns = [
        {"role": "user", "content": "Add."},
        {"role": "assistant", "content": "", "tool_calls": [call], "reasoning": "By the tool."},
        {"role": "tool", "content": "5", "tool_call_id": "c1"},
        {"role": "assistant", "content": "5."},
    ]
    report = bench.compile_rows("messages", [{"messages": turns}])
    assert not report.failed and report.unused.rows == {}


def test_keys_of_the_answers_of_a_pair_are_counted(bench):
    chosen = {"role": "assistant", "content": "B.", "model": "m"}
    row = {
        "prompt": [{"role": "user", "content": "A?"}],
        "chosen": [chosen],
        "rejected": chosen | {"content": "C."},
    }
    report = bench.compile_rows("pairs-chat", [row])
    assert report.unused.rows == {"chosen.model": 1, "rejected.model": 1}


def test_marks_in_parquet(bench):
    rows = [
        {"messages": talk("openai", {"text": "One.", "weight": 1.0}, {"text": "Two.", "weight": weight})}
        for weight in (None, 1.0, 0.0)
    ]
    source = bench.write("t.parquet", as_parquet(rows))
    (problem,) = bench.compile("messages", source).problems.errors
    assert problem.code == "E113" and problem.message.startswith("turn 4: marked with weight: 0.0")


def test_a_marked_call_is_refused(bench):
    call = {
        "role": "assistant",
        "tool_calls": [{"function": {"name": "add", "arguments": "{}"}}],
        "train": False,
    }
    result = {"role": "tool", "content": "5"}
    turns = [*talk("openai", {"text": "5."})]
    row = {"messages": [turns[0], call, result, turns[1]]}
    (problem,) = compiled(bench, "tools", [row]).problems.errors
    assert problem.code == "E113" and problem.message.startswith("turn 2:")
