"""Forms of own files that `data init` once took for plain text: each compiles to the right records."""

import json
import shutil
import sqlite3
import subprocess
import zipfile
from pathlib import Path

import pytest
import yaml

from tests.json_files import read_lines, write_json
from tests.unit.compiler.conftest import as_zip
from tuneyard.compiler.init.propose import FailingSpecError, propose
from tuneyard.core.errors import ContentError, RequestError, TuneyardError
from tuneyard.core.records.calls import RESULTS

COUNT = 30


def question(n: int) -> str:
    return f"What does report number {n} say about the {n} harbours?"


def answer(n: int) -> str:
    return f"It says that there were {n} of them in the north."


ANSWERED = [(question(n), answer(n)) for n in range(COUNT)]
FAQ = [{"question": question(n), "answer": answer(n)} for n in range(COUNT)]


def asked(n: int) -> list[tuple[str, str]]:
    return [("user", question(n)), ("assistant", answer(n))]


def records(bench, source: Path, **settings: str) -> list[dict]:
    """All records of the proposed spec, in the order of the file."""
    text, _ = propose(source, 0, bench.folder / "mine.yaml", **settings)
    report = bench.compile(str(bench.write("mine.yaml", text)))
    assert not report.problems.errors
    (path,) = (bench.folder / "out").rglob("mine*.jsonl")
    found = read_lines(path)
    assert len(found) == report.kept
    return found


def spoken(record: dict) -> list[tuple[str, str]]:
    """The turns of a record as (role, text)."""
    roles = {"human": "user", "gpt": "assistant"}
    return [(roles[turn["from"]], turn["value"]) for turn in record["conversations"]]


def answered(record: dict) -> tuple[str, str]:
    return record["instruction"], record["output"]


def test_turns_in_rows_that_are_shuffled_become_conversations(bench) -> None:
    lines = ["conversation_id,turn,role,text"]
    for turn in (10, 2, 9, 1):  # as numbers: as texts 10 comes before 2
        role = "user" if turn in (1, 9) else "assistant"
        lines += [f"c{talk},{turn},{role},{talk} says {turn}" for talk in range(COUNT)]
    source = bench.write("talk.csv", "\n".join(lines))
    assert "unanswered" not in propose(source)[0]  # the first row of each is its last turn
    found = records(bench, source)
    roles = ("user", "assistant", "user", "assistant")
    expected = [
        [(role, f"{talk} says {turn}") for role, turn in zip(roles, (1, 2, 9, 10), strict=True)]
        for talk in range(COUNT)
    ]
    assert [spoken(record) for record in found] == expected


@pytest.mark.parametrize(
    ("column", "user", "agent", "times"),
    [
        ("author_type", "end_user", "support_agent", ("2024-03-01T09:00:00Z", "2024-03-01T08:00:00Z")),
        ("author_type", "End User", "human-agent", ("01.03.2024 09:00", "28.02.2024 10:00")),
        ("is_customer", True, False, ("01.03.2024", "28.02.2024")),
        ("isBot", "0", "1", ("1700000060", "1700000000")),
        ("IsSender", 0, 1, (1700000060, 1700000000)),
    ],
)
def test_speakers_are_known_by_names_and_truth_values(bench, column, user, agent, times) -> None:
    rows = []
    for time, author in zip(times, (agent, user), strict=True):
        rows += [
            {"ticket": n, column: author, "body": f"{author} {n}", "created_at": time} for n in range(COUNT)
        ]
    found = records(bench, bench.rows("tickets.jsonl", rows))
    expected = [[("user", f"{user} {n}"), ("assistant", f"{agent} {n}")] for n in range(COUNT)]
    assert [spoken(record) for record in found] == expected


def test_the_last_word_of_the_customer_is_left_out_and_named(bench) -> None:
    lines = ["conversation_id,role,content"]
    for n in range(COUNT):
        lines += [f"{n},customer,{question(n)}", f"{n},agent,{answer(n)}", f"{n},customer,Thanks!"]
    table = bench.write("talk.csv", "\n".join(lines))
    talks = [
        {
            "messages": [
                *({"role": role, "content": text} for role, text in asked(n)),
                {"role": "user", "content": "!"},
            ]
        }
        for n in range(COUNT)
    ]
    for source in (table, bench.rows("talk.jsonl", talks)):
        found = records(bench, source)
        assert [spoken(record) for record in found] == [asked(n) for n in range(COUNT)]
        report = bench.compile(str(bench.folder / "mine.yaml"), force=True)
        (note,) = (note for note in report.problems.notes if "unanswered" in note)
        assert f"{COUNT} conversations" in note
        (bench.folder / "mine.yaml").unlink()
        shutil.rmtree(bench.folder / "out")


def test_a_completion_answers_turns_that_end_with_the_user(bench) -> None:
    def rows(make) -> list[dict]:
        asks = [[{"role": "user", "content": question(n)}] for n in range(COUNT)]
        return [make(ask, {"role": "assistant", "content": answer(n)}) for n, ask in enumerate(asks)]

    forms = {
        "trl": lambda ask, said: {"prompt": ask, "completion": [said]},
        "text": lambda ask, said: {"messages": ask, "response": said["content"]},
        "traces": lambda ask, said: {"input": ask, "output": said, "latency": 1.2},
        "logs": lambda ask, said: {
            "request": {"model": "m", "messages": ask},
            "response": {"choices": [{"index": 0, "message": said, "finish_reason": "stop"}]},
        },
    }
    for name, make in forms.items():
        found = records(bench, bench.rows(f"{name}.jsonl", rows(make)))
        assert [spoken(record) for record in found] == [asked(n) for n in range(COUNT)], name


def test_dialogues_in_one_text_are_conversations(bench) -> None:
    rows = [{"text": f"### Human: {question(n)}### Assistant: {answer(n)}"} for n in range(COUNT)]
    found = records(bench, bench.rows("guanaco.jsonl", rows))
    assert [spoken(record) for record in found] == [asked(n) for n in range(COUNT)]


@pytest.mark.parametrize(
    "make",
    [
        lambda ask, say: {"text": f"User: {ask}\nAssistant: {say}"},
        lambda ask, say: {"id": ask[-12:], "transcript": f"\n**Customer:** {ask}\n\n**Agent:** {say}"},
        lambda ask, say: {"body": f"### User\n{ask}\n\n### Assistant\n{say}"},
        lambda ask, say: {"instruction": f"Human:{ask}\nAssistant:", "input": "", "output": say},
        lambda ask, say: {"conversations": [ask, say], "source": "stackexchange"},
        lambda ask, say: {"id": 1, "data": [ask, say]},
    ],
    ids=["lines", "bold", "headings", "BELLE", "LIMA", "UltraChat"],
)
def test_dialogues_in_a_column_are_conversations(bench, make) -> None:
    found = records(bench, bench.rows("talk.jsonl", [make(question(n), answer(n)) for n in range(COUNT)]))
    assert [spoken(record) for record in found] == [asked(n) for n in range(COUNT)]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Q: 1 + 1?\nA: 2\nQ: 1 + 2?\nA:", "output": "3"},
        {"prompt": "User: Hello", "output": "Hello."},
        {"prompt": "Say it.", "output": "User: Hello\nAssistant: Hello."},
    ],
    ids=["examples", "no answer", "in the answer"],
)
def test_examples_in_a_prompt_and_dialogues_in_an_answer_stay_texts(bench, row) -> None:
    found = records(bench, bench.rows("shots.jsonl", [row | {"id": n} for n in range(COUNT)]))
    assert answered(found[0]) == (row["prompt"], row["output"])


@pytest.mark.parametrize(
    ("names", "more"),
    [
        ("text label", {}),
        ("input output", {"cot": "It is in the north."}),
        ("prompt content", {"reasoning_content": "It is in the north.", "score": 5}),
        ("input content", {"reasoning_content": "It is in the north.", "repo": "gsm8k"}),
    ],
    ids=["doccano", "cot", "R1", "R1 in Chinese"],
)
def test_an_answer_under_another_name_and_with_its_reasoning(bench, names, more) -> None:
    rows = []
    for n in range(COUNT):
        said = [answer(n)] if "label" in names else answer(n)
        rows.append({**dict(zip(names.split(), (question(n), said), strict=True)), **more})
    found = records(bench, bench.rows("own.jsonl", rows))
    thought = "<think>\nIt is in the north.\n</think>\n\n" if more else ""
    assert [answered(record) for record in found] == [(q, thought + a) for q, a in ANSWERED]


def test_turns_in_a_database_are_counted_by_its_file(bench) -> None:
    path = bench.folder / "talks.db"
    with sqlite3.connect(path) as database:
        database.execute("create table talks (conversation, role, content)")
        rows = [(n, role, text) for n in range(COUNT) for role, text in asked(n)]
        database.executemany("insert into talks values (?, ?, ?)", rows)
    assert [spoken(record) for record in records(bench, path)] == [asked(n) for n in range(COUNT)]
    report = bench.compile(str(bench.folder / "mine.yaml"), force=True)
    assert f"{path}: {2 * COUNT} rows are the turns of {COUNT} conversations" in report.problems.notes


def test_a_conversation_a_file_with_fields_beside_it(bench) -> None:
    for n in range(COUNT):
        messages = [{"role": role, "content": text} for role, text in asked(n)]
        bench.write(f"talks/{n:02}.json", json.dumps({"id": n, "lang": "de", "messages": messages}, indent=1))
    found = records(bench, bench.folder / "talks")
    assert [spoken(record) for record in found] == [asked(n) for n in range(COUNT)]


def test_a_rejected_answer_beside_the_answer_is_a_pair(bench) -> None:
    rows = [{"question": question(n), "answer": answer(n), "rejected": f"bad {n}"} for n in range(COUNT)]
    found = records(bench, bench.rows("pairs.jsonl", rows))
    assert [(record["chosen"], record["rejected"]) for record in found] == [
        (answer(n), f"bad {n}") for n in range(COUNT)
    ]


@pytest.mark.parametrize(
    ("ask", "reply"), [("Frage: ", "Antwort: "), ("F: ", "A: "), ("### Instruction:\n", "### Response:\n")]
)
def test_questions_and_answers_in_a_text_by_their_speakers(bench, ask, reply) -> None:
    text = "\n\n".join(f"{ask}{question(n)}\n{reply}{answer(n)}" for n in range(COUNT))
    found = records(bench, bench.write("faq.txt", text))
    assert [spoken(record) for record in found] == [asked(n) for n in range(COUNT)]


def test_short_utterances_have_a_class(bench) -> None:
    for name, header in (("en.csv", "utterance,intent"), ("zh.csv", "话语,意图")):
        lines = [f"play song {n},{('music', 'news', 'alarm')[n % 3]}" for n in range(COUNT)]
        text, _ = propose(bench.write(name, "\n".join([header, *lines])))
        assert "Please answer alarm or music or news" in text, name


def test_files_of_images_are_no_text_even_if_the_user_names_them(bench) -> None:
    rows = [{"image": f"img/{n}.jpg", "caption": answer(n)} for n in range(COUNT)]
    with pytest.raises(RequestError, match=r"--text image: .*\"img/0.jpg\".*spec media"):
        propose(bench.rows("captions.jsonl", rows), text="image", answer="caption")


def test_a_column_that_names_the_dialogue_groups_the_split(bench) -> None:
    rows = [{"dialog": f"d{n // 3}", "Customer": question(n), "Agent": answer(n)} for n in range(4 * COUNT)]
    text, _ = propose(bench.rows("turns.jsonl", rows), text="Customer", answer="Agent")
    assert "group: group" in text and "names: [dialog]" in text


def test_an_input_alone_is_the_question_once(bench) -> None:
    rows = [{"kind": "QA", "input": question(n), "target": answer(n)} for n in range(COUNT)]
    found = records(bench, bench.rows("firefly.jsonl", rows))
    assert [answered(record) for record in found] == ANSWERED
    assert {record["input"] for record in found} == {""}


def test_an_example_a_file_is_one_row_whatever_lists_are_in_it(bench) -> None:
    for n in range(COUNT):
        sources = [{"url": f"http://a/{n}/{i}"} for i in range(3)]
        row = {"question": question(n), "answer": answer(n), "sources": sources}
        bench.write(f"examples/{n:02}.json", json.dumps(row))
    found = records(bench, bench.folder / "examples")
    assert [answered(record) for record in found] == ANSWERED


def test_texts_with_the_tokens_of_a_template_are_told(bench) -> None:
    rows = [{"text": f"<s>[INST] {question(n)} [/INST] {answer(n)} </s>"} for n in range(COUNT)]
    said = propose(bench.rows("llama.jsonl", rows))[1]
    assert f"warning: {COUNT} of {COUNT} examples contain a token of a chat template" in said


def test_names_of_images_beside_a_text_are_not_left_out_in_silence(bench) -> None:
    rows = [{"file_name": f"{n}.PNG", "text": answer(n)} for n in range(COUNT)]
    assert "warning: not used: file_name (text)" in propose(bench.rows("captions.jsonl", rows))[1]


def test_successive_messages_of_one_speaker_are_one_turn(bench) -> None:
    rows = [
        {"dialog_id": n, "turn": turn, "who": who, "text": f"{who} {turn} of {n}"}
        for n in range(COUNT)
        for turn, who in enumerate(("customer", "customer", "agent", "customer", "agent", "agent"))
    ]
    found = records(bench, bench.rows("talk.jsonl", rows))
    expected = [
        [
            ("user", f"customer 0 of {n}\n\ncustomer 1 of {n}"),
            ("assistant", f"agent 2 of {n}"),
            ("user", f"customer 3 of {n}"),
            ("assistant", f"agent 4 of {n}\n\nagent 5 of {n}"),
        ]
        for n in range(COUNT)
    ]
    assert [spoken(record) for record in found] == expected
    report = bench.compile(str(bench.folder / "mine.yaml"), force=True)
    assert f"{2 * COUNT} rows continue the turn of the same speaker before them" in report.problems.notes
    # A mark of the second message is not lost with it, nor is a key that the first one lacks.
    rows[5] |= {"weight": 0}
    rows[11] |= {"team": "north"}
    bench.rows("talk.jsonl", rows)
    report = bench.compile(str(bench.folder / "mine.yaml"), force=True)
    (problem,) = report.problems.errors
    assert (problem.code, report.unused.rows["messages.team"]) == ("E107", 1)


def test_successive_results_of_tools_stay_apart(bench) -> None:
    call = '{"name": "look", "arguments": {}}'
    turns = (("user", "Look."), ("function_call", f"[{call}, {call}]"), ("tool", "1"), ("tool", "2"))
    rows = [
        {"session": n, "role": role, "content": text}
        for n in range(COUNT)
        for role, text in (*turns, ("assistant", "Both."))
    ]
    record = records(bench, bench.rows("talk.jsonl", rows))[0]
    assert record["conversations"][2] == {"from": "observation", "value": f"1{RESULTS}2"}


@pytest.mark.parametrize(
    ("name", "text", "fix"),
    [
        ("a.json", {"question": {"0": "a?", "1": "b?"}, "answer": {"0": "A", "1": "B"}}, "orient='records'"),
        ("a.json", {"columns": ["question"], "index": [0], "data": [["a?"]]}, "orient='records'"),
        (
            "a.csv",
            "id,talk\n" + "1,\"[{'from': 'human', 'value': 'Hi'}]\"\n" * COUNT,
            "talk holds lists in Python",
        ),
        (
            "a.csv",
            "question,choices,answer\n" + "\"How many?\",\"['one', 'two']\",A\n" * COUNT,
            "choices holds lists in Python",
        ),
        (
            "a.csv",
            "Export of May,,\n,,\nquestion,answer,state\na?,b,open\n",
            "delete the lines above the header",
        ),
    ],
    ids=["by columns", "split", "talks in Python", "choices in Python", "lines above"],
)
def test_what_pandas_and_people_write_is_refused_with_the_way_out(bench, name, text, fix) -> None:
    path = bench.write(name, text if isinstance(text, str) else json.dumps(text))
    with pytest.raises(ContentError) as failure:
        propose(path)
    assert fix in str(failure.value)


@pytest.mark.parametrize(
    ("ask", "say"),
    [
        ("问：", "答："),
        ("Q: ", "A: "),
        ("User: ", "Assistant: "),
        ("**Human:** ", "**AI:** "),
        ("客户：", "客服："),
        ("Q12: ", "A12: "),
        ("3. 问题：", "答案："),
        ("### User\n", "### Assistant\n"),
        ("## You said:\n", "## ChatGPT said:\n"),
    ],
)
def test_a_text_of_dialogues_is_read_by_its_speakers(bench, ask: str, say: str) -> None:
    blocks = [f"{ask}{question(n)}\n{say}{answer(n)}\nIt goes on.\n" for n in range(COUNT)]
    found = records(bench, bench.write("talk.txt", "\n".join(blocks)))
    expected = [[("user", question(n)), ("assistant", f"{answer(n)}\nIt goes on.")] for n in range(COUNT)]
    assert [spoken(record) for record in found] == expected


def test_a_heading_inside_an_answer_begins_no_turn(bench) -> None:
    block = "**User:** one?\n\n**Assistant:** First:\n\n## Question\nWhat?\n\n## Answer\n1.\n\n"
    (first, *_) = records(bench, bench.write("talk.md", block * COUNT))
    said = "First:\n\n## Question\nWhat?\n\n## Answer\n1."
    assert spoken(first) == [("user", "one?"), ("assistant", said)]


def test_a_class_named_for_speakers_is_a_class_where_nobody_answers(bench) -> None:
    rows = [{"user_id": n // 4, "post": question(n), "is_bot": n % 8 > 3} for n in range(40)]
    assert {record["output"] for record in records(bench, bench.rows("bots.jsonl", rows))} == {"yes", "no"}


def test_a_user_who_goes_on_without_a_blank_line_is_in_the_same_dialogue(bench) -> None:
    block = "User: one?\nAssistant: 1.\nUser: two?\nAssistant: 2.\n\n"
    (first, *_) = records(bench, bench.write("talk.txt", block * COUNT))
    assert spoken(first) == [("user", "one?"), ("assistant", "1."), ("user", "two?"), ("assistant", "2.")]


@pytest.mark.parametrize("name", ["talk.txt", "talk.md"])
def test_a_line_of_dashes_parts_dialogues_and_stays_inside_an_answer(bench, name: str) -> None:
    block = "**User:** one?\n\n**Assistant:** 1.\n---\nSo it is.\n---\n"
    block += "**User: two?**\n**Assistant:** 2.\n\n---\n\n"
    found = records(bench, bench.write(name, block * COUNT))
    expected = [
        [("user", "one?"), ("assistant", "1.\n---\nSo it is.")],
        [("user", "two?"), ("assistant", "2.")],
    ]
    assert [spoken(record) for record in found] == expected * COUNT


def test_of_two_classes_the_other_one_is_named(bench) -> None:
    lines = [f"{question(n)},{'low' if n % 9 else 'high'},{'ab'[n % 2]},{n}" for n in range(COUNT)]
    text, report = propose(bench.write("t.csv", "\n".join(["ticket,priority,team,number", *lines])))
    assert "label: [team]" in text and "as priority has" in report and "left out: priority, number" in report


def test_chatgpts_export_gives_the_branch_that_was_shown(bench) -> None:
    def node(name: str, parent: str | None, role: str, *parts: str) -> dict:
        content = {"content_type": "text", "parts": list(parts)}
        return {"id": name, "parent": parent, "message": {"author": {"role": role}, "content": content}}

    talks = []
    for n in range(COUNT):
        nodes = [
            {"id": "root", "parent": None, "message": None},
            node("a", "root", "system", ""),
            node("b", "a", "user", question(n)),
            node("old", "b", "assistant", "another answer"),
            node("new", "b", "assistant", answer(n)),
        ]
        mapping = {each["id"]: each for each in nodes}
        talks.append({"title": f"talk {n}", "mapping": mapping, "current_node": "new"})
    path = bench.write("conversations.json", json.dumps(talks))
    found = records(bench, path)
    assert [spoken(record) for record in found] == list(map(asked, range(COUNT)))
    # What goes to a tool and comes back is no turn, and is named as left out.
    call, seen = node("call", "b", "assistant", "print(1)"), node("seen", "call", "tool", "1")
    call["message"]["recipient"] = "python"
    talks[0]["mapping"] |= {"call": call, "seen": seen, "new": {**nodes[-1], "parent": "seen"}}
    write_json(path, talks)
    (first, *_) = records(bench, path)
    assert spoken(first)[-1] == ("assistant", answer(COUNT - 1)) and len(spoken(first)) == 2
    talks[1]["mapping"] |= {"call": call, "new": {**talks[1]["mapping"]["new"], "parent": "call"}}
    write_json(path, talks)
    text, said = propose(path)
    assert "not used: tool_messages" in said
    report = bench.compile(str(bench.write("tools.yaml", text)))
    assert report.unused.rows["tool_messages"] == 2
    # A picture is not left out of its turn: the row is an error.
    talks[0]["mapping"]["b"]["message"]["content"]["parts"].insert(0, {"asset_pointer": "file-service://x"})
    write_json(path, talks)
    said = propose(path)[1]
    assert f"1 of {COUNT} rows would be rejected" in said and "asset_pointer" in said


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize(
    "document",
    [
        {question(n): answer(n) for n in range(COUNT)},
        {f"q{n}": row for n, row in enumerate(FAQ)},
        {question(n): {"answer": answer(n), "page": n} for n in range(COUNT)},
        {"a": {"data": {"items": FAQ}}},
        {"count": 30, "data": {"v": 1, "items": [{"q": question(n), "a": answer(n)} for n in range(COUNT)]}},
        {"v": 1, "data": {"items": [{**row, "text_before": "before " * 10_000} for row in FAQ]}},
    ],
    ids=[
        "answers by question",
        "rows by id",
        "objects by question",
        "three levels",
        "two levels beside numbers",
        "two levels, and more than is looked at",
    ],
)
def test_objects_of_rows(bench, document, indent) -> None:
    found = records(bench, bench.write("data.json", json.dumps(document, indent=indent)))
    assert [answered(record) for record in found] == ANSWERED


def test_a_table_of_a_database(bench) -> None:
    path = bench.folder / "x.db"
    with sqlite3.connect(path) as database:
        database.execute("create table t(question text, answer text, n int)")
        rows = [(*pair, n) for n, pair in enumerate(ANSWERED)]
        database.executemany("insert into t values(?, ?, ?)", rows)
    assert [answered(record) for record in records(bench, path)] == ANSWERED
    with sqlite3.connect(path) as database:
        database.execute("create table other(text text)")
    with pytest.raises(ContentError, match="found the tables other, t; name one with --table"):
        propose(path)
    assert [answered(record) for record in records(bench, path, table="t")] == ANSWERED
    (bench.folder / "y.db").write_bytes(path.read_bytes()[:-1000].replace(b"question", b"\xff\0ues\0ion"))
    with pytest.raises(TuneyardError, match="E012"):
        propose(bench.write("z.db", "no database"))


@pytest.mark.parametrize("ending", ["txt", "md"])
def test_a_folder_of_documents_has_a_row_for_each(bench, ending: str) -> None:
    folder = bench.folder / "docs"
    folder.mkdir()
    texts = [f"# {n}\n\n{question(n)}\r\n\n{answer(n)}\n" for n in range(9)]
    for n, text in enumerate(texts):
        (folder / f"{n}.{ending}").write_bytes(text.encode())
    found = records(bench, folder)
    assert [record["text"] for record in found] == [text.replace("\r", "").strip("\n") for text in texts]


def test_the_first_annotation_of_label_studio_is_learned_and_the_others_are_named(bench) -> None:
    rows = []
    for n in range(COUNT):
        choices = [[{"value": {"choices": [label]}}] for label in (["pos", "neg"][n % 2], "neg")]
        if n == 9:
            choices = [[]]  # skipped
        annotations = [{"id": n, "result": result} for result in choices[: 1 + n % 3]]
        rows.append({"id": n, "data": {"text": question(n)}, "annotations": annotations})
    source = bench.write("export.json", json.dumps(rows))
    text, report = propose(source, 0)
    assert "not used: annotations (several objects)" in report
    assert "1 of 30 rows would be rejected" in report and "--on-error reject" in report
    bench.compile(str(bench.write("mine.yaml", text)), reject=True)
    (path,) = (bench.folder / "out").rglob("export*.jsonl")
    expected = [["pos", "neg"][n % 2] for n in range(COUNT) if n != 9]
    assert [record["output"] for record in read_lines(path)] == expected


def test_a_list_of_one_label_is_the_label(bench) -> None:
    rows = [{"id": n, "text": question(n), "label": [["pos", "neg"][n % 2]]} for n in range(COUNT)]
    found = records(bench, bench.rows("doccano.jsonl", rows))
    assert [record["output"] for record in found] == ["pos", "neg"] * (COUNT // 2)


@pytest.mark.parametrize(
    ("label", "kind"), [(["a", "b"], "texts"), ([[0, 4, "NAME"], [5, 9, "PLACE"]], "list")]
)
def test_several_labels_of_a_text_are_named_as_left_out(bench, label: list, kind: str) -> None:
    rows = [{"text": question(n), "label": label[: 1 + n % 2] if n % 5 else []} for n in range(COUNT)]
    assert f"warning: not used: label ({kind})" in propose(bench.rows("doccano.jsonl", rows))[1]


def test_the_export_of_claude_is_conversations(bench) -> None:
    def message(sender: str, text: str) -> dict:
        blocks = [{"type": "text", "text": text, "citations": []}]
        return {"uuid": text, "text": text, "content": blocks, "sender": sender, "attachments": []}

    rows = [
        {"uuid": f"u{n}", "chat_messages": [message("human", question(n)), message("assistant", answer(n))]}
        for n in range(COUNT)
    ]
    found = records(bench, bench.write("conversations.json", json.dumps(rows)))
    assert [spoken(record) for record in found] == [asked(n) for n in range(COUNT)]


def test_doubled_quotes_of_a_tsv_are_read_as_quotes(bench) -> None:
    lines = [f'"He said ""{n}"" to me."\t"It is ""{n}"" then."' for n in range(COUNT)]
    found = records(bench, bench.write("q.tsv", "\n".join(["question\tanswer", *lines]) + "\n"))
    assert answered(found[3]) == ('He said "3" to me.', 'It is "3" then.')


@pytest.mark.parametrize(
    ("name", "line", "told"),
    [
        ("a.txt", "{{'question': 'why {}', 'answer': 'so'}}", "Python's notation"),
        ("a.jsonl", "{{'question': 'why {}', 'answer': 'so'}}", "Python's notation"),
        ("a.txt", '{{"question": "why {}", "answer": "so"}}', "name it .jsonl"),
    ],
)
def test_lines_that_are_objects_are_no_plain_text(bench, name: str, line: str, told: str) -> None:
    with pytest.raises(ContentError, match=told):
        propose(bench.write(name, "\n".join(line.format(n) for n in range(COUNT))))


def test_a_picture_with_the_name_of_a_table_is_no_text(bench) -> None:
    path = bench.folder / "p.csv"
    path.write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(range(256)) * 9)
    with pytest.raises(ContentError, match="not a text file"):
        propose(path)


def test_a_broken_link_in_a_folder_is_not_passed_over(bench) -> None:
    folder = bench.folder / "data"
    folder.mkdir()
    (folder / "a.jsonl").write_text(json.dumps({"question": "one?", "answer": "1"}) + "\n")
    (folder / "b.jsonl").symlink_to(bench.folder / "gone.jsonl")
    with pytest.raises(FileNotFoundError, match=r"b\.jsonl"):
        propose(folder)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_archive_with_two_members_of_one_name_is_refused(bench) -> None:
    path = bench.folder / "two.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for text in ("one", "two"):
            archive.writestr("a.jsonl", json.dumps({"question": text, "answer": "x"}) + "\n")
    with pytest.raises(ContentError, match=r"it contains a\.jsonl twice"):
        propose(path)


def test_a_folder_of_different_data_is_refused(bench) -> None:
    folder = bench.folder / "data"
    folder.mkdir()
    (folder / "a.csv").write_text("question,answer\none?,1\n")
    (folder / "b.jsonl").write_text(json.dumps({"text": "good", "label": "pos"}) + "\n")
    with pytest.raises(ContentError, match=r"a\.csv has the columns answer, question, and .*b\.jsonl has"):
        propose(folder)


def test_one_dataset_is_proposed_and_named_by_the_spec(bench) -> None:
    calls = [
        {"from": "human", "value": "What is it?"},
        {"from": "function_call", "value": '{"name": "f", "arguments": {}}'},
        {"from": "observation", "value": "{}"},
        {"from": "gpt", "value": "It is f."},
    ]
    tools = json.dumps(
        [{"name": "f", "description": "d", "parameters": {"type": "object", "properties": {}}}]
    )
    source = bench.rows("talk.jsonl", [{"conversations": calls, "tools": tools}] * COUNT)
    text, report = propose(source, out=bench.folder / "calls of mine.yaml")
    assert text.count("dataset:") == 1 and "dataset: calls_of_mine" in text
    assert "calls of mine.yaml holds only the differences." in report


@pytest.mark.parametrize(
    ("header", "user", "assistant"),
    [
        ("dialogue_id,turn_idx,speaker,utterance", "USER", "SYSTEM"),  # a dialogue system (MultiWOZ)
        ("ticket,created_at,msg_no,author,body", "Customer", "Support"),  # all of one day
        ("session_id,turn,role,content", "customer", "Agent"),
    ],
)
def test_a_column_that_numbers_the_turns_is_found_by_its_values(bench, header, user, assistant) -> None:
    lines = [header]
    for turn in (2, 1):
        speaker = user if turn == 1 else assistant
        numbers = ["2024-01-01", str(turn)] if header.count(",") == 4 else [str(turn)]
        lines += [",".join([f"c{talk}", *numbers, speaker, f"{talk} says {turn}"]) for talk in range(COUNT)]
    found = records(bench, bench.write("talk.csv", "\n".join(lines)))
    assert [spoken(record) for record in found] == [
        [("user", f"{talk} says 1"), ("assistant", f"{talk} says 2")] for talk in range(COUNT)
    ]


def test_lines_may_end_with_carriage_returns(bench) -> None:
    rows = [f"{question(n)},{answer(n)}" for n in range(COUNT)]
    found = records(bench, bench.write("old.csv", "\r".join(["question,answer", *rows, ""])))
    assert [answered(record) for record in found] == ANSWERED
    found = records(bench, bench.write("old.txt", "\r".join(map(question, range(COUNT)))))
    assert [record["text"] for record in found] == list(map(question, range(COUNT)))


def test_messages_of_people_are_no_classes_and_their_chat_is_named(bench) -> None:
    """Slack, Discord and WhatsApp: who wrote a message is no class of it."""
    rows = [{"text": answer(n), "user": f"U0{n % 3}", "ts": f"17{n}.1"} for n in range(COUNT)]
    discord = [
        {"content": answer(n), "author": {"id": f"{n % 3}", "name": f"u{n % 3}"}} for n in range(COUNT)
    ]
    chat = "".join(f"12/03/2024, 21:{n + 10} - {['Ann', 'Ben'][n % 2]}: {answer(n)}\n" for n in range(COUNT))
    sources = [
        bench.write("slack.json", json.dumps(rows)),
        bench.write("discord.json", json.dumps({"messages": discord})),
        bench.write("whatsapp.txt", chat),
    ]
    for source in sources:
        text, report = propose(source)
        assert "label" not in text and "each row looks like one message of a chat" in report


def test_lines_with_times_that_are_no_messages_get_no_word_of_a_chat(bench) -> None:
    diary = "".join(f"On 12/03/2024 at 21:{n + 10} it was said: {answer(n)}\n" for n in range(COUNT))
    assert "of a chat" not in propose(bench.write("diary.txt", diary))[1]


def test_lines_with_labels_of_fasttext_are_refused_with_a_command_that_works(bench) -> None:
    lines = [f"__label__{['spam', 'ham'][n % 2]} {answer(n)}\n" for n in range(COUNT)]
    with pytest.raises(ContentError, match="begins with its label") as refused:
        propose(bench.write("mails.txt", "".join(lines)))
    command = str(refused.value).partition("write a table: ")[2]
    subprocess.run(command, shell=True, check=True)
    found = records(bench, bench.folder / "mails.tsv")
    assert {record["output"] for record in found} == {"spam", "ham"}


def test_an_archive_of_splits_is_refused_with_a_command(bench) -> None:
    table = f"question,answer\n{question(1)},{answer(1)}\n"
    source = bench.write("data.zip", as_zip({"train.csv": table, "test.csv": table}))
    with pytest.raises(ContentError, match="the splits .* && tuneyard data init "):
        propose(source)


def workbook(path: Path, *sheets: list) -> Path:
    """Write an Excel file of sheets with these rows."""
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.remove(book.active)
    for rows in sheets:
        sheet = book.create_sheet()
        for row in rows:
            sheet.append(row)
    book.save(path)
    return path


def test_a_workbook_with_a_title_and_a_sheet_about_it(bench) -> None:
    rows = [["Answers of the third quarter"], ["question", "answer", "date"]]
    rows += [[*pair, "2024-01-01"] for pair in ANSWERED]
    found = records(bench, workbook(bench.folder / "faq.xlsx", [["Exported by", "CRM"]], rows))
    assert [answered(record) for record in found] == ANSWERED


def test_choices_without_a_header_are_choices(bench) -> None:
    rows = [f"{question(n)},first {n},second {n},third {n},fourth {n},{'ABCD'[n % 4]}" for n in range(COUNT)]
    found = records(bench, bench.write("mmlu.csv", "\n".join(rows)))
    assert [record["output"] for record in found] == ["ABCD"[n % 4] for n in range(COUNT)]
    assert all(f"fourth {n}" in record["instruction"] for n, record in enumerate(found))


def two_texts_a_prompt(n: int) -> str:
    return f"{n // 2},{answer(n)},{['human', 'gpt'][n % 2]}"


CLASSES = {
    "stars,review_body,product": (lambda n: f"{n % 5 + 1},{answer(n)},B{n % 6}", {"1", "2", "3", "4", "5"}),
    "text,writer": (lambda n: f"{answer(n)},{['human', 'gpt'][n % 2]}", {"human", "gpt"}),
    "prompt_id,text,origin": (two_texts_a_prompt, {"human", "gpt"}),
    "recalled,text,origin": (two_texts_a_prompt, {"human", "gpt"}),
    "use_case,text,origin": (two_texts_a_prompt, {"human", "gpt"}),
    "text,intent_key": (lambda n: f"{answer(n)},{['pay', 'cancel'][n % 2]}", {"pay", "cancel"}),
}
"""Header, rows and classes. Who wrote a text is its class where no column names a conversation."""


@pytest.mark.parametrize("header", CLASSES)
def test_a_column_of_few_values_is_the_class(bench, header: str) -> None:
    line, classes = CLASSES[header]
    found = records(bench, bench.write("t.csv", "\n".join([header, *map(line, range(COUNT))])))
    assert {record["output"] for record in found} == classes


def test_standard_answers_of_a_chinese_table_are_answers(bench) -> None:
    rows = [
        f"{n},第{n}个问题是什么？,第{n}个问题的答案在这里,{['物流', '售后'][n % 2]}" for n in range(COUNT)
    ]
    found = records(bench, bench.write("faq.csv", "\n".join(["序号,问题,标准答案,业务分类", *rows])))
    assert found[0]["output"] == "第0个问题的答案在这里"


def test_speakers_are_found_in_a_column_of_any_name_and_turns_ordered_by_a_time(bench) -> None:
    lines = ["ts,call,party,utterance"]
    for turn in (2, 1):
        party = "customer" if turn == 1 else "agent"
        lines += [f"17000{turn:02},call-{talk},{party},{talk} says {turn}" for talk in range(COUNT)]
    found = records(bench, bench.write("calls.csv", "\n".join(lines)))
    assert [spoken(record) for record in found] == [
        [("user", f"{talk} says 1"), ("assistant", f"{talk} says 2")] for talk in range(COUNT)
    ]


@pytest.mark.parametrize(
    ("by", "role", "user", "assistant"),
    [
        ("case", "who", "customer", "agent"),
        ("ref_no", "party", "Customer", "Agent"),  # these names alone speak with each other
        ("ticket", "direction", "inbound", "outbound"),
    ],
)
def test_speakers_are_found_by_their_names(bench, by, role, user, assistant) -> None:
    lines = [f"{by},{role},message"]
    for talk in range(COUNT):
        lines += [f"{talk},{user},Hello {talk}?", f"{talk},{assistant},Yes."]
    found = records(bench, bench.write("talk.csv", "\n".join(lines)))
    assert spoken(found[3]) == [("user", "Hello 3?"), ("assistant", "Yes.")]


@pytest.mark.parametrize("notes", [5, COUNT])
def test_a_speaker_without_a_meaning_is_named_and_makes_no_class(bench, notes) -> None:
    lines = ["conversation_id,role,content"]
    for talk in range(COUNT):
        lines += [f"{talk},user,Hello {talk}?", f"{talk},assistant,Yes."]
        lines += [f"{talk},note,Kind.", f"{talk},supervisor,Good."] if talk < notes else []
    source = bench.write("talk.csv", "\n".join(lines))
    if notes < COUNT:
        text, report = propose(source)
        assert f"{notes} of {COUNT} rows would be rejected" in report
    else:
        with pytest.raises(FailingSpecError, match=r'found the role "note"') as refused:
            propose(source)
        text = f"{refused.value} {refused.value.spec}"
        assert text.count('no known speaker: "note", "supervisor"') == 2
    assert 'role has values that name no known speaker: "note", "supervisor"' in text
    assert "about: Conversations" in text


@pytest.mark.parametrize(
    ("name", "values"),
    [("time", ["9:05", "10:05"]), ("date", ["Jan 5, 2025", "Feb 5, 2025"]), ("sent", ["9:05", "10:05"])],
)
def test_turns_whose_time_cannot_order_them_are_named(bench, name, values) -> None:
    lines = [
        f"c{talk}|{role}|Hello.|{time}"
        for role, time in zip(("user", "assistant"), values, strict=True)
        for talk in range(COUNT)
    ]
    _, report = propose(bench.write("talk.csv", "\n".join([f"conversation_id|role|content|{name}", *lines])))
    expected = f"the turns stay in the order of the file, because {name} cannot order them ({values[0]})"
    assert expected in report


def test_a_text_that_begins_as_a_list_is_a_text_in_json_lines(bench) -> None:
    texts = [f'[{{"a": {n}}}] is what was printed.' for n in range(COUNT)]
    found = records(bench, bench.rows("t.jsonl", [{"text": text} for text in texts]))
    assert [record["text"] for record in found] == texts


def test_short_chinese_texts_are_prose_and_ids_are_no_classes(bench) -> None:
    rows = [f"K{n % 3},第{n}件用了两天就坏,{['好评', '差评'][n % 2]}" for n in range(COUNT)]
    found = records(bench, bench.write("c.csv", "\n".join(["编号,评价内容,口碑", *rows])))
    assert found[0]["instruction"].startswith("第0件用了两天就坏\n") and found[0]["output"] == "好评"


def test_a_truth_value_is_a_class_and_next_to_an_answer_it_is_named(bench) -> None:
    rows = [{"mail": answer(n), "spam": n % 2 == 0} for n in range(COUNT)]
    found = records(bench, bench.rows("mail.jsonl", rows))
    assert [record["output"] for record in found[:2]] == ["yes", "no"]
    rows = [{**row, "checked": n % 2 == 0} for n, row in enumerate(FAQ)]
    _, report = propose(bench.rows("checked.jsonl", rows))
    assert "not used: checked (truth value)" in report


def test_two_columns_of_prose_are_question_and_answer_with_a_warning(bench) -> None:
    rows = [{"id": n, "titre": question(n), "texte": answer(n)} for n in range(COUNT)]
    source = bench.rows("notes.jsonl", rows)
    found = records(bench, source)
    assert [answered(record) for record in found] == ANSWERED
    _, report = propose(source)
    assert "warning: texte is used as the answer to titre" in report


def test_thumbs_are_marks_and_not_answers_to_learn(bench) -> None:
    rows = [{**row, "thumbs_up": n % 2 == 0} for n, row in enumerate(FAQ)]
    found = records(bench, bench.rows("thumbs.jsonl", rows))
    assert [record["kto_tag"] for record in found[:2]] == [True, False]


def test_conversations_written_as_text_are_conversations_under_any_name(bench) -> None:
    turns = json.dumps([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}])
    found = records(bench, bench.rows("logs.jsonl", [{"id": n, "log": turns} for n in range(COUNT)]))
    assert spoken(found[0]) == [("user", "Hi"), ("assistant", "Hello")]


def test_a_row_nested_too_deep_is_refused_with_its_place(bench) -> None:
    path = bench.write("deep.jsonl", '{"k":' * 980 + '"a"' + "}" * 980)
    with pytest.raises(ContentError) as caught:
        propose(path)
    assert str(caught.value).startswith(f"{path}:1: ")


def test_a_text_of_many_nested_brackets_is_a_text(bench) -> None:
    rows = [{**row, "answer": '[{"a":' * 20_000} for row in FAQ]
    assert records(bench, bench.rows("deep.jsonl", rows))[0]["output"] == '[{"a":' * 20_000


@pytest.mark.parametrize("column", [{"preference": "tea"}, {"liked": 2}])
def test_a_preference_of_somebody_and_a_count_beside_an_answer_are_no_ranking(bench, column) -> None:
    rows = [{**row, **column} for row in FAQ]
    assert answered(records(bench, bench.rows("survey.jsonl", rows))[0]) == ANSWERED[0]


def test_an_exported_folder_is_refused_with_the_file_to_give(bench) -> None:
    (bench.folder / "export").mkdir()
    bench.rows("export/conversations.json", [{"id": "a", "messages": [{"role": "user", "content": "Hi"}]}])
    bench.rows("export/user.json", [{"id": "u", "email": "a@example.org"}])
    with pytest.raises(ContentError, match=r"data init \S*export/conversations\.json"):
        propose(bench.folder / "export")


@pytest.mark.parametrize(
    ("name", "text", "fix"),
    [
        ("a.json", "[{'prompt': 'a', 'completion': 'b'}]", "ast.literal_eval"),
        ("a.txt", "[\n {'prompt': 'a', 'completion': 'b'},\n]", "ast.literal_eval"),
        ("a.txt", '[\n {\n  "prompt": "a", "completion": "b"}\n]', "name it .json"),
        ("a.jsonl", '{"prompt": "a", "completion": "b"},\n' * 3, "sed "),
    ],
)
def test_lines_with_commas_and_documents_of_python_have_a_command(bench, name, text, fix) -> None:
    with pytest.raises(ContentError, match=fix):
        propose(bench.write(name, text))


def test_a_sheet_of_notes_before_the_table_is_not_read(bench) -> None:
    notes = [["Records of the support"], ["Do not pass on"]]
    path = workbook(bench.folder / "notes.xlsx", notes, [("question", "answer"), *ANSWERED])
    assert answered(records(bench, path)[0]) == ANSWERED[0]


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("sentiment", ["positive", "negative"]),
        ("update_note", ["n2", "n1"]),
        ("response_time", ["9.5", "5.5"]),
        ("zeit", ["29.02.2024 10:00", "01.03.2024 09:00"]),
        ("created_at", ["3/1/2024 9:58 AM", "3/1/2024 10:02 AM"]),
        ("sent_time", ["2024-3-1 9:00", "2024-3-1 10:00"]),
        ("ts", ["31/01/2024 23:59", "01/02/2024 00:01"]),
    ],
)
def test_turns_stay_in_the_order_of_the_file_unless_a_time_sorts(bench, name, values) -> None:
    lines = [f"call,party,utterance,{name}"]
    for talk in range(COUNT):
        lines += [f"call-{talk},customer,Hello {talk}?,{values[0]}", f"call-{talk},agent,Yes.,{values[1]}"]
    found = records(bench, bench.write("calls.csv", "\n".join(lines)))
    assert spoken(found[0]) == [("user", "Hello 0?"), ("assistant", "Yes.")]


def test_a_folder_of_conversations_may_have_ids_in_one_file_and_tools_in_another(bench) -> None:
    (bench.folder / "chats").mkdir()
    turns = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]
    bench.rows("chats/a.jsonl", [{"id": "a", "conversations": turns}])
    bench.rows("chats/b.jsonl", [{"conversations": turns, "tools": ""}])
    assert len(records(bench, bench.folder / "chats")) == 2


def test_rows_under_names_of_several_words_keep_their_own_question(bench) -> None:
    document = {f"case {n}": {"input": question(n), "output": answer(n)} for n in range(COUNT)}
    found = records(bench, bench.write("cases.json", json.dumps(document)))
    assert answered(found[0]) == ANSWERED[0]


def test_a_text_is_the_class_before_a_truth_value(bench) -> None:
    rows = [
        {"description": answer(n), "queue": ["bills", "repair"][n % 3 == 0], "solved": n % 2 == 0}
        for n in range(COUNT)
    ]
    found = records(bench, bench.rows("tickets.jsonl", rows))
    assert {record["output"] for record in found} == {"bills", "repair"}


@pytest.mark.parametrize("mark", [{"meta": {"is_scan": True}}, {"flag": None}])
def test_a_mark_of_some_rows_or_in_their_metadata_is_no_class(bench, mark) -> None:
    other = {"meta": {"is_scan": False}} if "meta" in mark else {"flag": True}
    rows = [{"text": answer(n), **(mark if n % 2 else other)} for n in range(COUNT)]
    rows[0] |= {"flag": False} if "flag" in mark else {}
    assert records(bench, bench.rows("web.jsonl", rows))[1]["text"] == answer(1)


def test_a_line_that_is_cut_is_not_said_to_end_with_a_comma_too_many(bench) -> None:
    lines = [json.dumps(row) for row in FAQ]
    lines.append('{"question": "Why?",')
    _, report = propose(bench.write("cut.jsonl", "\n".join(lines)))
    assert "E002: broken JSON at column" in report and "sed" not in report


def test_questions_about_each_text_of_a_list_are_rows(bench) -> None:
    texts = [
        {"context_text": f"Text {n}.", "qas": [{"query_text": question(n), "answers": [answer(n)]}] * 2}
        for n in range(COUNT)
    ]
    found = records(bench, bench.write("cmrc.json", json.dumps(texts)))
    assert [answered(record) for record in found[::2]] == ANSWERED
    assert len(found) == 2 * COUNT and found[1]["input"] == "Text 0."


def test_a_document_of_questions_is_told_how_to_be_read(bench) -> None:
    parts = [f"## {question(n)}\n\n{answer(n)}\n" for n in range(COUNT)]
    said = "\n\n".join(f"## Prompt:\n{q}\n\n## Response:\n{a}" for q, a in ANSWERED)
    for text, count in (("\n".join(parts), COUNT), (f"# A chat\n\n{said}", COUNT)):
        _, report = propose(bench.write("faq.md", text))
        assert f"{count} lines look like questions or turns" in report
        assert "write `Q:` before each question" in report


def test_classes_have_the_names_that_parquet_keeps_beside_their_numbers(bench) -> None:
    import pyarrow
    import pyarrow.parquet

    def file(name: str, columns: dict, **names: list[str]) -> Path:
        features = {key: {"names": each, "_type": "ClassLabel"} for key, each in names.items()}
        info = {"info": {"features": {"tokens": [{"dtype": "string", "_type": "Value"}], **features}}}
        table = pyarrow.table(columns).replace_schema_metadata({"huggingface": json.dumps(info)})
        pyarrow.parquet.write_table(table, bench.folder / name)
        return bench.folder / name

    texts = [answer(n) for n in range(COUNT)]
    ones = [n % 2 for n in range(COUNT)]
    news = file("news.parquet", {"text": texts, "topic": ones}, topic=["World", "Sports"])
    assert [record["output"] for record in records(bench, news)][:2] == ["World", "Sports"]
    pairs = {"sentence1": texts, "sentence2": texts, "label": ones}
    backwards = file("nli.parquet", pairs, label=["contradiction", "entailment"])  # not as in GLUE
    assert yaml.safe_load(propose(backwards)[0])["labels"] == {"no": [0], "yes": [1]}


def test_empty_columns_of_a_spreadsheet_are_passed_over(bench) -> None:
    lines = ["v1,v2,,,", *(f"{['ham', 'spam'][n % 2]},{question(n)},,," for n in range(COUNT))]
    found = records(bench, bench.write("spam.csv", "\n".join(lines)))
    assert len(found) == COUNT and found[1]["output"] == "spam"
    _, report = propose(bench.write("more.csv", "\n".join([*lines, "ham,is,it,,"])))
    assert "1 of 31 rows would be rejected" in report and "found 3 fields, expected 2" in report


def test_titles_above_the_header_of_a_sheet_are_passed_over(bench) -> None:
    table = [["No", "question", "answer"], *([n, *pair] for n, pair in enumerate(ANSWERED))]
    path = workbook(bench.folder / "faq.xlsx", [["Our FAQ"], [], ["as of May"], *table])
    assert [answered(record) for record in records(bench, path)] == ANSWERED


def test_a_sheet_of_one_column_before_a_shorter_table_is_read(bench) -> None:
    texts = [["text"], *([answer(n)] for n in range(COUNT))]
    path = workbook(bench.folder / "texts.xlsx", texts, [["metric", "value"], ["rows", COUNT]])
    assert records(bench, path)[0]["text"] == answer(0)


OLD = json.dumps([{"role": "user", "content": "Old"}, {"role": "assistant", "content": "Old."}])


def test_turns_come_before_turns_written_as_text(bench) -> None:
    turns = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]
    found = records(bench, bench.rows("a.jsonl", [{"log": OLD, "conversations": turns}] * COUNT))
    assert spoken(found[0]) == [("user", "Hi"), ("assistant", "Hello")]


REFUSED = {
    "turns of no conversation": (
        [{"role": ("user", "assistant")[n % 2], "content": question(n)} for n in range(COUNT)],
        "to which conversation it belongs",
    ),
    "premises without labels": ([{"premise": "a", "hypothesis": "b"}], "nothing in it looks like"),
    "pairs without labels": ([{"sentence1": "a", "sentence2": "b"}], "nothing in it looks like"),
    "questions as answers": (
        {f"game {n}": {"passage": answer(n), "qa": {"question": question(n)}} for n in range(COUNT)},
        "nothing in it looks like",
    ),
    "answers under numbered names": (
        {f"user {n}": {"answer": answer(n), "score": n} for n in range(COUNT)},
        "nothing in it looks like",
    ),
    "one of two answers wins": (
        [
            {"prompt": question(n), "response_a": answer(n), "response_b": "No.", "preference": "ab"[n % 2]}
            for n in range(COUNT)
        ],
        "E108 response_a: .* preference data .*write the better answer as `chosen`",
    ),
    "earlier turns as text": ([{**row, "history": OLD} for row in FAQ], "E105 history"),
}


@pytest.mark.parametrize(("document", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_learned_from_only_with_more_is_refused(bench, document, message) -> None:
    with pytest.raises(ContentError, match=message):
        propose(bench.write("a.json", json.dumps(document)))
