"""The form of an export stands in the spec: no key of a row decides what its file is."""

import json

import pytest

from tests.messages import raises
from tests.plug_ins import documented, installing
from tests.unit.compiler.conftest import Bench, as_csv, error_codes, exchange, json_lines, questions, spoken
from tuneyard.compiler.engine.request import CompileReport
from tuneyard.compiler.init.command import FailingSpecError, propose
from tuneyard.compiler.spec.export_forms import export_forms
from tuneyard.compiler.spec.file import read_schema
from tuneyard.core.errors import ContentError
from tuneyard.core.plugins import PluginError

COUNT = 30
"""Rows of a file for `init`."""


def test_the_schema_lists_the_forms() -> None:
    assert read_schema()["$defs"]["form"]["enum"] == list(export_forms())


COMMENTS = [{"author_id": None, "body": "Nice."}, {"author_id": 7, "body": "Thanks."}]
TREE = {"a": {"message": {"author": {"role": "user"}, "content": {"parts": ["Hi?"]}}}}


@pytest.mark.parametrize(
    "others",
    [
        {"comments": COMMENTS},
        {"comments": COMMENTS, "requester_id": None},
        {"comments": [{"body": "Nice.", "user": "ann"}]},
        {"conversation_parts": {"conversation_parts": [{"body": "Nice."}]}, "source": "web"},
        {"mapping": {"a": "b"}, "current_node": "a"},
        {"mapping": TREE},
        {"annotations": [{"was_cancelled": True, "note": "unsure"}]},
        {"message_tree_id": "t1", "prompt_id": "p"},
        {"text_entities": [], "type": "note"},
        {"ts": "1700000000.000100", "type": "message"},
    ],
    ids=lambda others: "-".join(others),
)
@pytest.mark.parametrize("makes_spec", [True, False], ids=["init", "own spec"])
def test_a_question_and_its_answer_stay_whatever_key_their_rows_have(
    bench: Bench, others, makes_spec
) -> None:
    rows = [row | others for row in questions(COUNT)]
    source = bench.rows("own.jsonl", rows)
    spec = f"like: qa\nsource: {{files: {source}}}\n"
    report = bench.compile(propose(source, 0)[0] if makes_spec else spec)
    assert report.kept == COUNT
    (path,) = [
        path for path in bench.out.rglob("*.json*") if path.parent.name != "out" and "mani" not in path.name
    ]
    (records,) = [bench.records(path.name)]
    assert [(record["instruction"], record["output"]) for record in records] == [
        (f"Q{n}?", f"A{n}.") for n in range(COUNT)
    ]


@pytest.mark.parametrize("text", ["std::vector<int> &amp; more", "a<b>c", "<T> of <U>", "x <https://a.b|c>"])
@pytest.mark.parametrize("member", [{}, {"user": "ann"}, {"user": "U1", "ts": "2024-01-01"}])
def test_texts_with_a_time_and_a_type_stay_as_they_are(bench: Bench, text: str, member: dict) -> None:
    rows = [
        {"type": "message", "text": f"{text} {n}", "ts": f"170000{n:04}.000100"} | member for n in range(9)
    ]
    source = bench.rows("log.jsonl", rows)
    bench.compile("text", source)
    assert bench.values("text.jsonl", "text") == [f"{text} {n}" for n in range(9)]


def test_an_export_without_its_form_is_not_changed_and_the_error_names_the_form(bench: Bench) -> None:
    ticket = {
        "requester_id": 1,
        "comments": [{"author_id": 1, "body": "Why?"}, {"author_id": 2, "body": "So."}],
    }
    source = bench.write("tickets.json", json.dumps([ticket] * 3))
    report = bench.compile("messages", source)
    assert error_codes(report) == ["E101"] and "form: zendesk" in report.problems.errors[0].line()
    bench.compile("like: messages\nsource: {form: zendesk}\n", source)
    assert spoken(bench.first("messages.jsonl")) == [("user", "Why?"), ("assistant", "So.")]


def test_two_of_three_rows_are_the_file_and_one_is_not(bench: Bench) -> None:
    message = {
        "type": "message",
        "user": "U01",
        "ts": "1700000000.000100",
        "text": "<@U02> &lt;b&gt; <!here> x",
    }
    plain = {"type": "message", "text": "&lt;b&gt;", "ts": "1700000000.000100"}
    for rows, form in (([message, message, plain], True), ([message, plain, plain], False)):
        text = propose(bench.rows("log.jsonl", rows * 10), text="text")[0]
        assert ("form: slack" in text) == form


PAIR = {"prompt": "2+2?", "response_a": "4", "response_b": "5"}


def compiled_pairs(bench: Bench, rows: list[dict], source: str = "{}", **options: bool) -> CompileReport:
    return bench.compile(f"like: pairs\nsource: {source}\n", bench.rows("rows.jsonl", rows), **options)


@pytest.mark.parametrize(
    ("odd", "field"),
    [
        ({"prompt": "odd", "response_a": "4", "winner": "a"}, "response_b"),
        ({"prompt": "odd", "response_b": "4", "winner": "a"}, "response_a"),
        ({"prompt": "odd", "response_a": "4", "response_b": "5"}, "winner"),
        ({"prompt": "odd", "winner": "a"}, "chosen"),
        ({"odd": 1}, "question"),
    ],
)
@pytest.mark.parametrize("place", [0, 5, 1999])
def test_an_odd_row_is_rejected_alone_wherever_it_stands(
    bench: Bench, odd: dict, field: str, place: int
) -> None:
    rows = [PAIR | {"winner": "ab"[n % 2]} for n in range(2000)]
    rows.insert(place, odd)
    report = compiled_pairs(bench, rows, reject=True)
    assert (report.kept, report.rejected, report.problems.fatal) == (2000, 1, False)
    problem = report.problems.errors[0]
    assert problem.place.endswith(f":{place + 1}") and problem.code == "E102" and field in problem.field
    assert [record["chosen"] for record in bench.records("pairs.json")[:2]] == ["4", "5"]


def test_an_odd_first_row_of_a_second_file_is_rejected_alone(bench: Bench) -> None:
    good = PAIR | {"winner": "b"}
    sources = [bench.rows(f"{name}.jsonl", [{"x": 1}, *[good] * 3]) for name in "ab"]
    report = bench.compile("pairs", *sources, reject=True)
    assert (report.kept, report.rejected) == (6, 2)


@pytest.mark.parametrize(
    ("value", "chosen"),
    [
        ("a", "4"),
        ("B", "5"),
        ("model_a", "4"),
        ("Response B", "5"),
        ("response_b", "5"),
        ("assistant-a", "4"),
        ("tie", None),
        ("both bad", None),
    ],
)
def test_a_verdict_names_an_answer_or_a_tie(bench: Bench, value: str, chosen: str | None) -> None:
    rows = [PAIR | {"winner": "a"}, PAIR | {"winner": value}]
    report = compiled_pairs(bench, rows)
    assert bench.values("pairs.json", "chosen") == ["4", chosen][: 1 + bool(chosen)]
    assert report.dropped == ({} if chosen else {"tie": 1}) and report.read == 2


@pytest.mark.parametrize(
    "value", ["A>B", "B>>A", "A=B", "a and b", "not_a", "c", None, "", "-a", "worse: a", ["a"], {"a": 1}]
)
def test_any_other_verdict_is_an_error_of_its_row(bench: Bench, value: object) -> None:
    report = compiled_pairs(bench, [PAIR | {"winner": "a"}, PAIR | {"winner": value}], reject=True)
    assert error_codes(report) == ["E111"] and (report.kept, report.rejected) == (1, 1)
    assert "verdict: {first: [" in report.problems.errors[0].hint


@pytest.mark.parametrize("value", [-2, "-1", "−1", 3, 0, 1.5, "2.5", "+2"])
def test_a_number_that_names_no_answer_puts_all_numbers_in_doubt(bench: Bench, value: object) -> None:
    rows = [
        {"prompt": "2+2?", "response_1": "4", "response_2": "5", "winner": each} for each in (1, 2, value)
    ]
    report = compiled_pairs(bench, rows, reject=True)
    assert error_codes(report) == ["E111"] and report.failed


SIGNED = "{form: preference, verdict: {first: [-3, -2, -1], second: [1, 2, 3], tie: [0]}}"


@pytest.mark.parametrize("layout", ["jsonl", "csv"])
@pytest.mark.parametrize("column", ["preference", "winner", "overall_preference"])
def test_a_map_in_the_spec_reads_signed_verdicts(bench: Bench, column: str, layout: str) -> None:
    verdicts = [-3, -2, -1, 0, 1, 2, 3, 0]
    rows = [
        {"prompt": f"{n}?", "response_1": "first", "response_2": "second", column: verdict}
        for n, verdict in enumerate(verdicts)
    ]
    source = bench.write(f"rows.{layout}", as_csv(rows) if layout == "csv" else json_lines(rows))
    report = bench.compile(f"like: pairs\nsource: {SIGNED}\n", source)
    assert bench.values("pairs.json", "chosen") == ["first"] * 3 + ["second"] * 3
    assert (report.read, report.kept, report.dropped) == (8, 6, {"tie": 2})
    text, said, _ = propose(source, 0)
    assert "first: [-3, -2, -1]" in text and "below 0 the first answer is taken as better" in said


@pytest.mark.parametrize(
    ("verdict", "values"),
    [
        ("{first: [true], second: [false]}", [True, False]),
        ("{first: [1], second: [2], tie: [null]}", [1, 2, None]),
        ("{first: ['A>B', 'A>>B'], second: ['B>A'], tie: ['A=B']}", ["A>>B", "B>A", "A=B"]),
        ("{first: [0.5], second: [-0.5]}", ["0.5", "-0.50"]),
    ],
)
def test_a_map_in_the_spec_reads_any_verdict(bench: Bench, verdict: str, values: list) -> None:
    rows = [PAIR | {"winner": value} for value in values]
    compiled_pairs(bench, rows, f"{{form: preference, verdict: {verdict}}}")
    assert bench.values("pairs.json", "chosen") == ["4", "5"]
    other = compiled_pairs(bench, [*rows, PAIR | {"winner": 9}], f"{{form: preference, verdict: {verdict}}}")
    assert error_codes(other) == ["E111"]


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("{form: chatgpt, verdict: {first: [1], second: [2]}}", "verdict has no effect"),
        ("{form: preference, verdict: {first: [1], second: [1]}}", "stands under first and second"),
        ("{form: preference, verdict: {first: [1]}}", "second"),
        ("{form: msn}", "msn"),
    ],
)
def test_a_wrong_form_or_verdict_in_a_spec_is_refused(bench: Bench, source: str, fault: str) -> None:
    with pytest.raises(ContentError, match=fault):
        compiled_pairs(bench, [PAIR], source)


def test_numbers_without_a_sign_that_name_no_answer_are_no_proposal(bench: Bench) -> None:
    rows = [PAIR | {"winner": 1 + n % 2} for n in range(COUNT)]
    with pytest.raises((ContentError, FailingSpecError), match=r"E111.*verdict: \{first: \["):
        propose(bench.rows("rows.jsonl", rows))


def test_rows_with_a_chosen_answer_stay_as_they_are(bench: Bench) -> None:
    row = {"prompt": "2+2?", "chosen": "4", "rejected": "5", "response_a": "", "response_b": ""}
    assert compiled_pairs(bench, [row]).kept == 1


def test_cancelled_annotations_are_an_error_where_a_spec_does_not_know_its_file(bench: Bench) -> None:
    """A spec of an earlier version has no `form`."""
    label = [{"value": {"choices": ["good"]}}]
    rows = [
        {"data": {"text": f"Text {n}"}, "annotations": [{"was_cancelled": n == 1, "result": label}]}
        for n in range(3)
    ]
    source = bench.rows("own.jsonl", rows)
    spec = (
        "about: x\ncolumns: {text: [data.text], label: [annotations.0.result.0.value.choices.0]}\n"
        "labels: {good: [good], bad: [bad]}\n"
        "write: [{file: a.jsonl, format: alpaca, instruction: '{text}', output: '{label}'}]\n"
    )
    assert error_codes(bench.compile(spec, source)) == ["E108"]
    report = bench.compile(f"source: {{form: label_studio}}\n{spec}", source, reject=True)
    assert (report.kept, report.rejected) == (2, 1)


CHUNKS = [
    {"role": "user", "text": "What is it?", "tokenCount": 4},
    {"role": "model", "text": "They ask what it is.", "isThought": True},
    {"role": "model", "text": "It is a lake.", "finishReason": "STOP"},
    {"role": "user", "text": "And this?"},
    {"role": "model", "text": "A river."},
]
TURNS = [
    ("user", "What is it?"),
    ("assistant", "<think>\nThey ask what it is.\n</think>\n\nIt is a lake."),
    ("user", "And this?"),
    ("assistant", "A river."),
]
SETTINGS = {"model": "m", "safetySettings": [{"category": "C"}]}
DOCUMENTS = [
    {"runSettings": SETTINGS, "systemInstruction": {"text": "Be brief."},
     "chunkedPrompt": {"chunks": CHUNKS}},
    {"chunkedPrompt": {"chunks": CHUNKS, "pendingInputs": [{"role": "user", "text": ""}]}, "runSettings": {},
     "systemInstruction": {"parts": [{"text": "Be "}, {"text": "brief."}]}},
    {"settings": SETTINGS, "system_instruction": "Be brief.", "history": CHUNKS},
    {"config": {"seed": 1}, "prompt": {"system": "Be brief.", "turns": CHUNKS}},
    {"systemInstruction": {"parts": [{"text": "Be brief."}]}, "turns": CHUNKS},
    {"generationConfig": {"seed": 1}, "systemInstruction": {"parts": [{"text": "Be brief."}]},
     "history": [{"role": chunk["role"], "parts": [{**chunk}]} for chunk in CHUNKS]},
    {"parameters": {"seed": 1}, "system": "Be brief.",
     "dialogue": [{"speaker": chunk["role"], **chunk, "role": chunk["role"]} for chunk in CHUNKS]},
    {"settings": {"padding": "x" * 2_000_000}, "system": "Be brief.", "talk": {"items": {"turns": CHUNKS}}},
]  # fmt: skip


@pytest.mark.parametrize("document", DOCUMENTS, ids=range(len(DOCUMENTS)))
@pytest.mark.parametrize("indent", [None, 1])
def test_a_document_of_several_objects_is_one_conversation(bench: Bench, document: dict, indent) -> None:
    source = bench.write("chat.json", json.dumps(document, indent=indent))
    text, _, _ = propose(source)
    assert "form: ai_studio" in text
    report = bench.compile(text)
    assert report.read == 1
    (record,) = bench.records("chat.jsonl")
    assert (record["system"], spoken(record)) == ("Be brief.", TURNS)


def test_a_folder_of_chats_has_a_conversation_in_each_file(bench: Bench) -> None:
    for n in range(3):
        bench.write(f"chats/{n}.json", json.dumps(DOCUMENTS[0], indent=1))
    bench.compile(propose(bench.folder / "chats")[0])
    assert [spoken(record) for record in bench.records("chats.jsonl")] == [TURNS] * 3


TITLED = [
    {"title": "Lakes", "turns": CHUNKS},
    {"title": "Lakes", "chunkedPrompt": {"chunks": CHUNKS}},
    {"id": 7, "create_time": "2026-01-05", "messages": CHUNKS},
    {"标题": "湖", "对话": CHUNKS},
    {"conversation_id": "a-1", "data": {"messages": CHUNKS}},
    {"topic": "Lakes", "chat": [{"from": chunk["role"], "value": chunk["text"],
                                 "isThought": chunk.get("isThought", False)} for chunk in CHUNKS]},
    {"uuid": "1", "name": "Lakes", "chat_messages": [{"sender": chunk["role"], **chunk} for chunk in CHUNKS]},
]  # fmt: skip


@pytest.mark.parametrize("document", TITLED, ids=range(len(TITLED)))
def test_a_document_with_only_a_title_is_one_conversation(bench: Bench, document: dict) -> None:
    source = bench.write("chat.json", json.dumps(document, indent=1))
    assert bench.compile(propose(source)[0]).read == 1
    (record,) = bench.records("chat.jsonl")
    assert spoken(record) == TURNS


def test_rows_of_turns_under_a_title_may_be_several_chats(bench: Bench) -> None:
    document = {"title": "Talks", "rows": [turn for _ in range(9) for turn in CHUNKS[::2]]}
    with raises(ContentError, "conversation"):
        propose(bench.write("talks.json", json.dumps(document)))


def test_each_row_with_a_title_and_turns_is_a_conversation(bench: Bench) -> None:
    rows = [{"title": f"talk {n}", "turns": CHUNKS} for n in range(5)]
    assert bench.compile(propose(bench.rows("chats.jsonl", rows))[0]).read == 5
    assert [spoken(record) for record in bench.records("chats.jsonl")] == [TURNS] * 5


@pytest.mark.parametrize(
    ("key", "fix"),
    [
        ("driveImage", "spec media"),
        ("inlineImage", "spec media"),
        ("driveVideo", "spec media"),
        ("driveDocument", "write its text"),
    ],
)
@pytest.mark.parametrize("text", [None, "See this:"])
def test_a_turn_that_is_a_file_is_named(bench: Bench, key: str, fix: str, text: str | None) -> None:
    turn = {"role": "user", key: {"id": "1a"}}
    if text:
        turn["text"] = text
    chunks = [turn, {"role": "user", "text": "What is it?"}, CHUNKS[2]]
    source = bench.rows("chats.jsonl", [{"runSettings": SETTINGS, "chunkedPrompt": {"chunks": chunks}}])
    report = bench.compile("like: messages\nsource: {form: ai_studio}\n", source)
    (problem,) = report.problems.errors
    assert problem.code == "E107" and key in problem.line() and fix in problem.line()


def test_a_table_of_turns_in_a_document_is_no_chat(bench: Bench) -> None:
    rows = [{"dialog_id": n, **turn} for n in range(9) for turn in CHUNKS[:3:2]]
    text = propose(bench.write("talks.json", json.dumps({"settings": {"a": 1}, "rows": rows})))[0]
    assert "ai_studio" not in text and "by: dialog_id" in text


@pytest.mark.parametrize(
    "mark", [{"thought": True}, {"isThought": True}, {"is_thought": 1}, {"thought": "true"}]
)
@pytest.mark.parametrize("place", ["parts", "typed parts", "turn"])
def test_a_thought_is_never_joined_to_the_answer(bench: Bench, mark: dict, place: str) -> None:
    question, answer = exchange("Why?", "So.")
    if place == "parts":
        turns = [question, {"role": "model", "parts": [{"text": "Hm.", **mark}, {"text": "So."}]}]
    elif place == "typed parts":
        parts = [{"type": "text", "text": "Hm.", **mark}, {"type": "text", "text": "So."}]
        turns = [question, {"role": "assistant", "content": parts}]
    else:
        turns = [question, {"role": "assistant", "content": "Hm.", **mark}, answer]
    bench.compile_rows("messages", [{"contents": turns}])
    assert spoken(bench.first("messages.jsonl"))[1] == ("assistant", "<think>\nHm.\n</think>\n\nSo.")


@pytest.mark.parametrize("mark", [False, "false", 0, "0", "no", ""])
def test_a_mark_that_is_false_in_each_turn_of_a_table_is_none(bench: Bench, mark: object) -> None:
    turns = [
        {"talk": 1, "who": turn["role"], "said": turn["content"], "thought": mark}
        for turn in exchange("Q", "A")
    ]
    assert bench.compile(f"about: t{TABLE}", bench.rows("t.jsonl", turns)).kept == 1


@pytest.mark.parametrize("value", [["first", "second"], ["左", "右"], ["Left", "RIGHT"]])
def test_a_side_or_a_place_is_a_verdict(bench: Bench, value: list) -> None:
    rows = [{"prompt": f"q {n}", "response_a": "x", "response_b": "y", "winner": value[n]} for n in range(2)]
    bench.compile("pairs", bench.rows("p.jsonl", rows))
    assert [record["chosen"] for record in bench.records("pairs.json")] == ["x", "y"]


@pytest.mark.parametrize("key", ["text", "content", "parts", "value"])
def test_a_system_text_in_an_object(bench: Bench, key: str) -> None:
    system = [{"text": "Be brief."}] if key == "parts" else "Be brief."
    document = {"settings": SETTINGS, "system": {key: system}, "turns": CHUNKS}
    bench.compile(propose(bench.write("chat.json", json.dumps(document)))[0])
    assert bench.first("chat.jsonl")["system"] == "Be brief."


def test_a_thought_without_an_answer_is_refused_and_a_mark_that_is_false_is_none(bench: Bench) -> None:
    question, answer = exchange("Why?", "So.")
    alone = [question, {**answer, "isThought": True}]
    assert error_codes(bench.compile_rows("messages", [{"messages": alone}])) == ["E107"]
    bench.compile_rows("messages", [{"messages": [question, {**answer, "thought": "false"}]}])
    assert spoken(bench.first("messages.jsonl"))[1] == ("assistant", "So.")


TABLE = """
like: messages
source: {turns: {by: talk, role: who, text: said}}
columns: {turns: {names: [messages], is: turns}}
"""


@pytest.mark.parametrize(
    "others",
    [
        ["content"],
        ["role"],
        ["from", "value"],
        ["value", "from", "content", "role"],
        ["text", "speaker"],
        ["parts"],
    ],
)
def test_the_columns_that_the_spec_names_are_learned_whatever_the_others_are_called(
    bench: Bench, others
) -> None:
    rows = []
    for n in range(3):
        for who, said in (("user", f"Q{n}?"), ("assistant", f"A{n}.")):
            rows.append({"talk": n, **dict.fromkeys(others, "other"), "who": who, "said": said})
    report = bench.compile(TABLE, bench.write("t.csv", as_csv(rows)))
    assert [spoken(record) for record in bench.records("messages.jsonl")] == [
        [("user", f"Q{n}?"), ("assistant", f"A{n}.")] for n in range(3)
    ]
    assert all(any(name in key for key in report.unused.rows) for name in others)


def test_thoughts_in_a_table_of_turns(bench: Bench) -> None:
    rows = [
        {"talk": 1, "who": who, "said": said, "isThought": is_thought}
        for who, said, is_thought in (("user", "Q?", ""), ("model", "Hm.", "TRUE"), ("model", "A.", "FALSE"))
    ]
    bench.compile(TABLE, bench.write("t.csv", as_csv(rows)))
    assert spoken(bench.first("messages.jsonl"))[1] == ("assistant", "<think>\nHm.\n</think>\n\nA.")


@pytest.mark.parametrize("odd", [{"note": "x"}, {"question": None, "answers": None}, {"question": "Q?"}])
@pytest.mark.parametrize("place", [0, 7])
def test_an_odd_row_does_not_decide_what_rated_answers_are(bench: Bench, odd: dict, place: int) -> None:
    rated = [{"text": "good", "rating": 5}, {"text": "bad", "rating": 1}]
    rows: list[dict] = [{"question": f"Q{n}?", "answers": rated} for n in range(COUNT)]
    rows.insert(place, odd)
    text, said, _ = propose(bench.rows("rated.jsonl", rows), 0)
    assert "about: Preference pairs" in text and f"1 of {COUNT + 1} rows would be rejected" in said
    assert bench.compile(text, reject=True).kept == COUNT


def test_reasoning_of_a_thought_stays(bench: Bench) -> None:
    question, answer = exchange("Why?", "So.")
    thought = {**answer, "content": "Hm.", "thought": True, "reasoning_content": "Oh."}
    bench.compile_rows("messages", [{"messages": [question, thought, answer | {"reasoning_content": "Ah."}]}])
    assert spoken(bench.first("messages.jsonl"))[1] == (
        "assistant",
        "<think>\nOh.\nHm.\nAh.\n</think>\n\nSo.",
    )


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("<@U02> see <https://a.b/c|this> &amp; <mailto:a@b.c>", "see this & mailto:a@b.c"),
        (
            "<!here> vector<int>, <T> and <std::string> in <#C01|general>",
            "!here vector<int>, <T> and <std::string> in general",
        ),
        ("a &lt;b&gt; <https://a.b>", "a <b> https://a.b"),
    ],
)
def test_the_form_of_slack_reads_its_marks_alone(bench: Bench, text: str, plain: str) -> None:
    message = {"type": "message", "user": "U01", "ts": "1700000000.000100", "text": text}
    bench.compile("like: text\nsource: {form: slack}\n", bench.rows("log.jsonl", [message]))
    assert bench.values("text.jsonl", "text") == [plain]


POSTS = [
    {"topic_title": f"Q{n}", "cooked": "How?", "accepted_answer": f"So {n}.", "id": n} for n in range(COUNT)
]


@pytest.fixture
def forum(tmp_path, monkeypatch):
    """The file of an installed form, which docs/extending.md has."""
    caches = (export_forms, read_schema)
    with installing(tmp_path / "lib", "tuneyard.forms", monkeypatch, *caches) as lay:
        lay("forum", documented("ExportForm"))
        yield next((tmp_path / "lib").rglob("plug_forum.py"))


def test_the_form_of_a_package_is_found_compiled_and_part_of_the_identity(bench, forum):
    source = bench.rows("posts.jsonl", POSTS)
    text = propose(source, 0).text
    assert "form: forum" in text
    spec = bench.write("own.yaml", text)
    assert bench.compile(spec).kept == COUNT
    assert bench.values("posts.json*", "instruction")[0] == "Q0\nHow?"
    assert bench.compile(spec).up_to_date
    forum.write_text(forum.read_text() + "# changed\n")
    assert not bench.compile(spec).up_to_date


def test_an_error_of_the_form_of_a_package_names_it(bench, forum):
    forum.write_text(forum.read_text().replace("row['cooked']", "row['lost']"))
    spec = bench.write("own.yaml", "about: f\nlike: qa\nsource: {form: forum}\n")
    with raises(PluginError, "forum", "plug_forum 1.2", "tuneyard.forms", "KeyError"):
        bench.compile(spec, bench.rows("posts.jsonl", POSTS))
