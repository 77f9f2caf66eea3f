"""Forms of own files that `data init` once took for plain text: each compiles to the right records."""

import json
import re
import sqlite3
import subprocess
import zipfile
from collections.abc import Iterable
from pathlib import Path

import pyarrow.parquet
import pytest
import yaml

from tests.conftest import ROOT
from tests.json_files import read_lines, write_json
from tests.messages import golden_text, message_of, raises
from tests.unit.compiler.conftest import as_csv, as_zip, exchange, json_lines, spoken
from tuneyard.compiler.engine.request import CompileReport
from tuneyard.compiler.init.command import FailingSpecError, propose
from tuneyard.compiler.read.dataset_reader import stored_records
from tuneyard.core.errors import ContentError, TuneyardError
from tuneyard.core.language.message import translated
from tuneyard.core.language.reader import CHINESE, in_language

COUNT = 30
EXPORTS = ROOT / "tests/examples/init"


def question(n: int) -> str:
    return f"What does report number {n} say about the {n} harbours?"


def answer(n: int) -> str:
    return f"It says that there were {n} of them in the north."


ANSWERED = [(question(n), answer(n)) for n in range(COUNT)]
FAQ = [{"question": q, "answer": a} for q, a in ANSWERED]


def asked(n: int) -> list[tuple[str, str]]:
    return [("user", question(n)), ("assistant", answer(n))]


OLD = json.dumps(exchange("Old", "Old."))
"""A conversation written as text."""
PROBES = [asked(n) for n in range(COUNT)]


def table(bench, name: str, header: str, lines: Iterable[str]) -> Path:
    return bench.write(name, "\n".join([header, *lines]))


def database(bench, name_and_columns: str, rows: list[tuple]) -> Path:
    """Add a table to the database `x.db`."""
    path = bench.folder / "x.db"
    with sqlite3.connect(path) as connection:
        connection.execute(f"create table {name_and_columns}")
        if rows:
            places = ", ".join("?" * len(rows[0]))
            connection.executemany(f"insert into {name_and_columns.split()[0]} values ({places})", rows)
    return path


def by_talk(*lines: str) -> list[str]:
    """The lines of the first conversation, then those of the second, ... `{n}` is its number."""
    return [line.format(n=n) for n in range(COUNT) for line in lines]


def by_turn(*lines: str) -> list[str]:
    """The first line of every conversation, then the second of every one, ... `{n}` is its number."""
    return [line.format(n=n) for line in lines for n in range(COUNT)]


def records(bench, source: Path | list[dict], **settings: str) -> list[dict]:
    """All records of the proposed spec, in the order of the file, or of a file of these rows."""
    if isinstance(source, list):
        source = bench.rows("own.jsonl", source)
    text, _, _ = propose(source, 0, bench.folder / "mine.yaml", **settings)
    report = bench.compile(bench.write("mine.yaml", text))
    assert not report.problems.errors
    (path,) = (bench.folder / "out").glob("[!.]*/mine*.jsonl")
    found = read_lines(path)
    assert len(found) == report.kept
    return found


def again(bench) -> CompileReport:
    """Compile with the spec that `records` proposed."""
    return bench.compile(bench.folder / "mine.yaml", force=True)


def talks(bench, source: Path | list[dict]) -> list[list[tuple[str, str]]]:
    return [spoken(record) for record in records(bench, source)]


def answers(bench, source: Path | list[dict], **settings: str) -> list[tuple[str, str]]:
    """The question and the answer of each record."""
    return [(record["instruction"], record["output"]) for record in records(bench, source, **settings)]


def outputs(bench, source: Path | list[dict]) -> list[str]:
    return [record["output"] for record in records(bench, source)]


def test_turns_in_rows_that_are_shuffled_become_conversations(bench) -> None:
    turns = ("10,assistant,{n} says 10", "2,assistant,{n} says 2", "9,user,{n} says 9", "1,user,{n} says 1")
    lines = by_turn(*("c{n}," + turn for turn in turns))  # as numbers: as texts 10 comes before 2
    source = table(bench, "talk.csv", "conversation_id,turn,role,text", lines)
    assert "unanswered" not in propose(source)[0]  # the first row of each is its last turn
    order = (("user", 1), ("assistant", 2), ("user", 9), ("assistant", 10))
    expected = [[(role, f"{talk} says {turn}") for role, turn in order] for talk in range(COUNT)]
    assert talks(bench, source) == expected
    assert not any("not used" in line for line in again(bench).unused.lines(COUNT))


@pytest.mark.parametrize("odd", ["", "1"])
def test_a_turn_without_its_number_or_with_a_second_one_leaves_the_others_in_order(bench, odd: str) -> None:
    lines = by_turn("c{n},2,assistant,{n} says 2", "c{n},1,user,{n} says 1")
    source = table(bench, "talk.csv", "conversation_id,turn,role,text", [f"c0,{odd},assistant,Bye", *lines])
    text, report, _ = propose(source)
    assert "order: turn" in text
    assert f"turn is empty or repeated in 1 of {COUNT} conversations" in report
    assert ("talk.csv:2: E005 turn: found" in report) == (odd == "")
    with in_language(CHINESE):
        assert f"{COUNT} 个对话中有 1 个的 turn 为空或重复" in translated(report)


def test_numbers_that_repeat_in_most_conversations_are_named_unless_another_column_orders(bench) -> None:
    lines = by_talk("c{n},1,{n}0,user,{n} says 1", "c{n},1,{n}1,user,{n} says 2", "c{n},2,{n}2,agent,Yes.")
    header = "conversation_id,turn,message_id,role,text"
    said = f"because turn is empty or repeated in {COUNT} of {COUNT} conversations"
    with_ids = propose(table(bench, "ids.csv", header, lines))
    assert "order: message_id" in with_ids[0] and said not in with_ids[1]
    lines = [line.replace("0,user", "x,user") for line in lines]
    without = propose(table(bench, "talk.csv", header, lines))
    assert "order: " not in without[0] and said in without[1]
    with in_language(CHINESE):
        assert f"因为 {COUNT} 个对话中有 {COUNT} 个的 turn 为空或重复" in translated(without[1])


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
def test_speakers_are_known_by_names_and_truth_values(bench, column, user, agent, times):
    rows = [
        {"ticket": n, column: author, "body": f"{author} {n}", "created_at": time, "Type": str(n % 2)}
        for time, author in zip(times, (agent, user), strict=True)
        for n in range(COUNT)
    ]
    expected = [[("user", f"{user} {n}"), ("assistant", f"{agent} {n}")] for n in range(COUNT)]
    assert talks(bench, rows) == expected
    said = propose(bench.rows("talk.jsonl", rows))[1]
    assert 'Type has the values "0", "1"' in said  # pictures, for instance


WECHAT = [("你好，请问支持降噪吗？", "支持的。"), ("多少钱一副？", "三百九十九元。"), ("谢谢", "不客气")]
"""Questions and answers that repeat in each conversation, so that no column but its name shows the text."""


def wechat_rows(partner: str, speaker: str, text: str, day: int) -> list[dict[str, object]]:
    """The messages of one conversation, as the tools for WeChat export them, on a day of its own."""
    rows: list[dict[str, object]] = []
    for pair in WECHAT:
        for is_sender, words in enumerate(pair):
            rows.append(
                {
                    "MsgSvrID": f"{day}{len(rows)}",
                    "Type": 1,
                    speaker: is_sender,
                    "talker": ("wxid_" + partner, "我")[is_sender],
                    "room_name": "wxid_" + partner,
                    "StrTalker": "wxid_" + partner,
                    text: words,
                    "CreateTime": 1_700_000_000 + 86_400 * day + len(rows),
                }
            )
    return rows


@pytest.mark.parametrize(
    ("speaker", "text"), [("IsSender", "StrContent"), ("is_sender", "msg"), ("isSender", "消息内容")]
)
@pytest.mark.parametrize("partner", ["room_name", "StrTalker", ""])
def test_a_chat_of_wechat_is_parted_by_its_partner_or_its_days(bench, speaker, text, partner) -> None:
    """Without a column of the partner, or with one partner, the messages of a day are a conversation."""
    rows = []
    for number in range(COUNT):
        name = str(number) if partner else "0"
        for row in wechat_rows(name, speaker, text, number):
            kept = {key: value for key, value in row.items() if key not in ("room_name", "StrTalker")}
            rows.append(kept | ({partner: row[partner]} if partner else {}))
    turns = [
        (role, words) for pair in WECHAT for role, words in zip(("user", "assistant"), pair, strict=True)
    ]
    assert talks(bench, bench.rows("chat.jsonl", rows)) == [turns] * COUNT


@pytest.mark.parametrize(
    "keys",
    [
        *("role content", "speaker text", "from value", "from message", "speaker utterance"),
        *("role msg", "sender msg", "speaker msg", "from msg"),
    ],
)
@pytest.mark.parametrize(
    ("user", "agent"), [("顧客", "オペレーター"), ("user", "assistant"), ("客户", "客服")]
)
@pytest.mark.parametrize("by_id", [True, False])
def test_speakers_in_lists_of_turns_are_known_by_their_names(bench, keys, user, agent, by_id) -> None:
    role, text = keys.split()
    lists = {f"c{n}": [{role: user, text: question(n)}, {role: agent, text: answer(n)}] for n in range(COUNT)}
    source = bench.write("talk.json", json.dumps(lists))
    if not by_id:
        source = bench.rows("talk.jsonl", [{"id": name, "talk": turns} for name, turns in lists.items()])
    assert talks(bench, source) == PROBES


@pytest.mark.parametrize("as_table", [True, False])
@pytest.mark.parametrize("option", ["unasked", "unanswered"])
def test_a_greeting_and_the_last_word_of_the_customer_are_left_out_and_named(bench, as_table, option) -> None:
    turns = [[*asked(n), ("user", "Thanks!")] for n in range(COUNT)]
    if option == "unasked":
        turns = [[("assistant", "Hello!"), *asked(n)] for n in range(COUNT)]
    if as_table:
        lines = [f"{n},{role},{text}" for n in range(COUNT) for role, text in turns[n]]
        source = table(bench, "talk.csv", "conversation_id,role,content", lines)
    else:
        messages = [[{"role": role, "content": text} for role, text in talk] for talk in turns]
        source = bench.rows("talk.jsonl", [{"messages": talk} for talk in messages])
    assert talks(bench, source) == PROBES
    report = again(bench)
    (note,) = (note for note in report.problems.notes if option in note)
    assert f"{COUNT} conversations" in note
    assert f"`{option}: drop`" in propose(source)[1]


@pytest.mark.parametrize(
    "make",
    [
        lambda ask, said: {"prompt": ask, "completion": [said]},
        lambda ask, said: {"messages": ask, "response": said["content"]},
        lambda ask, said: {"input": ask, "output": said, "latency": 1.2},
        lambda ask, said: {
            "request": {"model": "m", "messages": ask},
            "response": {"choices": [{"index": 0, "message": said, "finish_reason": "stop"}]},
        },
        lambda ask, said: {
            "request": {"contents": [{"role": "user", "parts": [{"text": ask[0]["content"]}]}]},
            "response": {
                "candidates": [{"content": {"role": "model", "parts": [{"text": said["content"]}]}}]
            },
        },
    ],
    ids=["trl", "text", "traces", "logs", "Gemini"],
)
def test_a_completion_answers_turns_that_end_with_the_user(bench, make) -> None:
    rows = []
    for q, a in ANSWERED:
        rows.append(make([{"role": "user", "content": q}], {"role": "assistant", "content": a}))
    assert talks(bench, rows) == PROBES


@pytest.mark.parametrize(
    "make",
    [
        lambda ask, say: {"text": f"### Human: {ask}### Assistant: {say}"},
        lambda ask, say: {"text": f"User: {ask}\nAssistant: {say}"},
        lambda ask, say: {"id": ask[-12:], "transcript": f"\n**Customer:** {ask}\n\n**Agent:** {say}"},
        lambda ask, say: {"body": f"### User\n{ask}\n\n### Assistant\n{say}"},
        lambda ask, say: {"instruction": f"Human:{ask}\nAssistant:", "input": "", "output": say},
        lambda ask, say: {"conversations": [ask, say], "source": "stackexchange"},
        lambda ask, say: {"id": 1, "data": [ask, say]},
        lambda ask, say: {"id": 1, "log": json.dumps(exchange(ask, say))},
    ],
    ids=["Guanaco", "lines", "bold", "headings", "BELLE", "LIMA", "UltraChat", "JSON"],
)
def test_dialogues_in_a_column_are_conversations(bench, make) -> None:
    assert talks(bench, [make(*pair) for pair in ANSWERED]) == PROBES


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Q: 1 + 1?\nA: 2\nQ: 1 + 2?\nA:", "output": "3"},
        {"prompt": "User: Hello", "output": "Hello."},
        {"prompt": "Say it.", "output": "User: Hello\nAssistant: Hello."},
    ],
)
def test_examples_in_a_prompt_and_dialogues_in_an_answer_stay_texts(bench, row) -> None:
    rows = [row | {"id": n} for n in range(COUNT)]
    assert answers(bench, rows)[0] == (row["prompt"], row["output"])


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
    thought = "<think>\nIt is in the north.\n</think>\n\n" if more else ""
    assert answers(bench, rows) == [(q, thought + a) for q, a in ANSWERED]


def test_turns_in_a_database_are_counted_by_its_file(bench) -> None:
    rows = [(n, *turn) for n in range(COUNT) for turn in asked(n)]
    path = database(bench, "talks (conversation, role, content)", rows)
    assert talks(bench, path) == PROBES
    report = again(bench)
    assert f"{path}: {2 * COUNT} rows are the turns of {COUNT} conversations" in report.problems.notes


def test_a_conversation_a_file_with_fields_beside_it(bench) -> None:
    for n in range(COUNT):
        messages = [{"role": role, "content": text} for role, text in asked(n)]
        bench.write(f"talks/{n:02}.json", json.dumps({"id": n, "lang": "de", "messages": messages}, indent=1))
    assert talks(bench, bench.folder / "talks") == PROBES


@pytest.mark.parametrize("mark", [{"thumbs": ("Thumbs up", "bad")}, {"thumbs_up": (True, False)}])
def test_thumbs_up_or_down_mark_an_answer(bench, mark):
    ((name, values),) = mark.items()
    rows = [row | {name: values[n % 2]} for n, row in enumerate(FAQ)]
    found = records(bench, rows)
    assert [record["kto_tag"] for record in found] == [True, False] * (COUNT // 2)
    assert "is: kto" in propose(bench.rows("one_blank.jsonl", [*rows, FAQ[0] | {name: ""}]))[0]


@pytest.mark.parametrize("user_columns", [{"text": "image", "answer": "caption"}, {"answer": "caption"}, {}])
def test_files_of_images_are_no_text_even_if_the_user_names_them(bench, user_columns) -> None:
    rows = [{"image": f"img/{n}.jpg", "caption": answer(n)} for n in range(COUNT)]
    with pytest.raises(TuneyardError, match="image names files, .*spec media"):
        propose(bench.rows("captions.jsonl", rows), **user_columns)


def test_images_next_to_the_columns_that_the_user_names_are_ignored(bench) -> None:
    source = bench.rows("shop.jsonl", [{**row, "photo": f"{n}.jpg"} for n, row in enumerate(FAQ)])
    with raises(ContentError, "E110", "media_dir", "--text"):
        propose(source)
    text, said, _ = propose(source, text="question", answer="answer")
    assert "ignore:\n- photo\n" in text and "not used: photo" in said


@pytest.mark.parametrize("name", ["dialog", "Patient", "客户"])
def test_a_column_that_names_the_dialogue_or_the_person_groups_the_split(bench, name) -> None:
    rows = [{name: f"d{n // 10}", "Customer": question(n), "Agent": answer(n)} for n in range(4 * COUNT)]
    text, _, _ = propose(bench.rows("turns.jsonl", rows), text="Customer", answer="Agent")
    assert "group: group" in text and f"names: [{name}]" in text


def test_an_input_alone_is_the_question_once(bench) -> None:
    assert answers(bench, [{"kind": "QA", "input": q, "target": a} for q, a in ANSWERED]) == ANSWERED
    assert set(bench.values("mine.jsonl", "input")) == {""}


def test_an_example_a_file_is_one_row_whatever_lists_are_in_it(bench) -> None:
    for n, row in enumerate(FAQ):
        sources = [{"url": f"http://a/{n}/{i}"} for i in range(3)]
        bench.write(f"examples/{n:02}.json", json.dumps(row | {"sources": sources}))
    assert answers(bench, bench.folder / "examples") == ANSWERED


@pytest.mark.parametrize(
    "text",
    [
        "<s>[INST] {} [/INST] {} </s>",
        "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n{}<|im_end|>\n",
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n{}<|eot_id|>",
    ],
)
def test_texts_with_the_tokens_of_a_template_are_conversations(bench, text: str) -> None:
    found = records(bench, [{"text": text.format(*pair)} for pair in ANSWERED])
    assert [tuple(turn["value"] for turn in record["conversations"]) for record in found] == ANSWERED


def test_names_of_images_beside_a_text_are_not_left_out_in_silence(bench) -> None:
    rows = [{"file_name": f"{n}.PNG", "text": answer(n)} for n in range(COUNT)]
    assert "warning: not used: file_name (text)" in propose(bench.rows("captions.jsonl", rows))[1]


def test_successive_messages_of_one_speaker_are_one_turn(bench) -> None:
    rows = [
        {"dialog_id": n, "turn": turn, "who": who, "text": f"{who} {turn} of {n}"}
        for n in range(COUNT)
        for turn, who in enumerate(("customer", "customer", "agent", "customer", "agent", "agent"))
    ]
    expected = [
        [
            ("user", f"customer 0 of {n}\n\ncustomer 1 of {n}"),
            ("assistant", f"agent 2 of {n}"),
            ("user", f"customer 3 of {n}"),
            ("assistant", f"agent 4 of {n}\n\nagent 5 of {n}"),
        ]
        for n in range(COUNT)
    ]
    assert talks(bench, rows) == expected
    report = again(bench)
    assert f"{2 * COUNT} rows continue the turn of the same speaker before them" in report.problems.notes
    # A mark of the second message is not lost with it, nor is a key that the first one lacks.
    rows[5] |= {"weight": 0}
    rows[11] |= {"team": "north"}
    bench.rows("own.jsonl", rows)
    report = again(bench)
    (problem,) = report.problems.errors
    assert (problem.code, report.unused.rows["messages.team"]) == ("E107", 1)


@pytest.mark.parametrize(
    ("name", "text", "fix"),
    [
        ("a.json", {"question": {"0": "a?"}, "answer": {"0": "A"}}, "orient='records'"),
        ("a.json", {"text": ["a", "b"], "label": ["x", "y"]}, "jq -c 'to_entries"),
        ("a.jsonl", {"question_id": 81, "turns": ["a?", "b?"]}, "each row has a question_id"),
        ("a.csv", "Export of May\n\nquestion,answer\na?,b\n", "delete the lines above a table's header"),
        ("a.json", {"columns": ["question"], "data": [["a?"]]}, "orient='records'"),
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
)
def test_what_pandas_and_people_write_is_refused_with_the_way_out(bench, name, text, fix) -> None:
    path = bench.write(name, text if isinstance(text, str) else json.dumps(text))
    with pytest.raises(ContentError) as failure:
        propose(path)
    assert fix in str(failure.value)


@pytest.mark.parametrize("more", ["", "\nIt goes on."])
@pytest.mark.parametrize(
    ("ask", "say"),
    [
        ("问：", "答："),
        ("Q: ", "A: "),
        ("F: ", "A: "),
        ("Frage: ", "Antwort: "),
        ("Pregunta: ", "Respuesta: "),
        ("Question : ", "Réponse : "),
        ("User: ", "Assistant: "),
        ("**Human:** ", "**AI:** "),
        ("客户：", "客服："),
        ("Q12: ", "A12: "),
        ("3. 问题：", "答案："),
        ("【问】", "【答】"),
        ("【问题】：", "【回答】："),
        ("### User\n", "### Assistant\n"),
        ("### Instruction:\n", "### Response:\n"),
        ("## You said:\n", "## ChatGPT said:\n"),
    ],
)
def test_a_text_of_dialogues_is_read_by_its_speakers(bench, ask: str, say: str, more: str) -> None:
    blocks = [f"{ask}{q}\n{say}{a}{more}\n" for q, a in ANSWERED]
    expected = [[("user", q), ("assistant", f"{a}{more}")] for q, a in ANSWERED]
    assert talks(bench, bench.write("talk.txt", "\n".join(blocks))) == expected


def test_a_heading_inside_an_answer_begins_no_turn(bench) -> None:
    block = "**User:** one?\n\n**Assistant:** First:\n\n## Question\nWhat?\n\n## Answer\n1.\n\n"
    said = "First:\n\n## Question\nWhat?\n\n## Answer\n1."
    assert talks(bench, bench.write("talk.md", block * COUNT))[0] == [("user", "one?"), ("assistant", said)]


def test_a_class_named_for_speakers_is_a_class_where_nobody_answers(bench) -> None:
    rows = [{"user_id": n // 4, "post": question(n), "is_bot": n % 8 > 3} for n in range(40)]
    assert {record["output"] for record in records(bench, rows)} == {"yes", "no"}


def test_a_user_who_goes_on_without_a_blank_line_is_in_the_same_dialogue(bench) -> None:
    block = "User: one?\nAssistant: 1.\nUser: two?\nAssistant: 2.\n\n"
    first = talks(bench, bench.write("talk.txt", block * COUNT))[0]
    assert first == [("user", "one?"), ("assistant", "1."), ("user", "two?"), ("assistant", "2.")]
    assert again(bench).problems.counts["W225"] == 0


def test_conversations_that_may_go_on_after_a_blank_line_are_counted(bench) -> None:
    block = "User: one?\n\nAssistant: 1.\n\nUser: two?\n\nAssistant: 2.\n\n"
    source = bench.write("talk.txt", block * COUNT)
    assert talks(bench, source)[0] == [("user", "one?"), ("assistant", "1.")]
    assert again(bench).problems.counts["W225"] == 2 * COUNT - 1
    report = propose(source)[1]
    assert f"{2 * COUNT - 1} of {2 * COUNT} examples begin after a blank line" in report
    assert "W225" not in propose(bench.write("faq.txt", "Q: one?\n\nA: 1.\n\n" * COUNT))[1]


@pytest.mark.parametrize("parting", ["", " "])
def test_conversations_that_the_agent_begins_are_parted_and_may_end_with_either(bench, parting: str) -> None:
    short = "客服：您好！\n客户：{0}?\n客服：{0}.\n"
    long = "客服：您好！\n客户：{1}?\n客服：{1}.\n客户：谢谢\n"
    block = f"{short}{parting}\n{long}{parting}"
    lines = [block.format(2 * n, 2 * n + 1) for n in range(COUNT)]
    expected = [[("user", f"{n}?"), ("assistant", f"{n}.")] for n in range(2 * COUNT)]
    assert talks(bench, bench.write("talk.txt", "\n".join(lines))) == expected


@pytest.mark.parametrize("name", ["talk.txt", "talk.md"])
def test_a_line_of_dashes_is_a_part_of_the_turn_above_it(bench, name: str) -> None:
    block = "**User:** one?\n\n**Assistant:** 1.\n---\nSo it is.\n\n"
    block += "**User: two?**\n**Assistant:** 2.\n---\n\n"
    expected = [
        [("user", "one?"), ("assistant", "1.\n---\nSo it is.")],
        [("user", "two?"), ("assistant", "2.\n---")],
    ]
    assert talks(bench, bench.write(name, block * COUNT)) == expected * COUNT


@pytest.mark.parametrize("name", ["faq.md", "faq.txt"])
@pytest.mark.parametrize(
    "form", ["## {}\n\n{}\nMore.\nAnd more.\n\n", "**{}**\n\n{}\n- a\n- b\n\n", "# {}\n{}\n\n"]
)
def test_headings_that_ask_are_no_turns_and_the_fix_is_named(bench, name: str, form: str) -> None:
    source = bench.write(name, "".join(form.format(*pair) for pair in ANSWERED))
    assert all(record.keys() == {"text"} for record in records(bench, source))
    warning = next(line for line in propose(source)[1].splitlines() if "look like questions" in line)
    assert f"{COUNT} of " in warning and "write `Q:` before each question" in warning


def test_of_two_classes_the_other_one_is_named(bench) -> None:
    lines = [f"{question(n)},{'low' if n % 9 else 'high'},{'ab'[n % 2]}{f',{n}' * 9}" for n in range(COUNT)]
    lines.insert(0, "ticket,priority,team,n1,n2,n3,n4,n5,n6,n7,n8,n9")
    text, report, _ = propose(bench.write("t.csv", "\n".join(lines)))
    assert "label: [team]" in text and "as priority has" in report
    assert "left out: priority, n1, n2, n3, n4, n5, n6, n7 and 2 more\n" in translated(report)


def test_chatgpts_export_gives_the_branch_that_was_shown(bench) -> None:
    def node(name: str, parent: str | None, role: str, *parts: str) -> dict:
        content = {"content_type": "text", "parts": list(parts)}
        return {"id": name, "parent": parent, "message": {"author": {"role": role}, "content": content}}

    exported = []
    for n in range(COUNT):
        nodes = [
            {"id": "root", "parent": None, "message": None},
            node("a", "root", "system", ""),
            node("b", "a", "user", question(n)),
            node("old", "b", "assistant", "another answer"),
            node("new", "b", "assistant", answer(n)),
        ]
        mapping = {each["id"]: each for each in nodes}
        exported.append({"title": f"talk {n}", "mapping": mapping, "current_node": "new"})
    path = bench.write("conversations.json", json.dumps(exported))
    assert talks(bench, path) == PROBES
    # What goes to a tool and comes back is no turn, and is named as left out.
    call, seen = node("call", "b", "assistant", "print(1)"), node("seen", "call", "tool", "1")
    call["message"]["recipient"] = "python"
    exported[0]["mapping"] |= {"call": call, "seen": seen, "new": {**nodes[-1], "parent": "seen"}}
    write_json(path, exported)
    (first, *_) = records(bench, path)
    assert spoken(first)[-1] == ("assistant", answer(COUNT - 1)) and len(spoken(first)) == 2
    exported[1]["mapping"] |= {"call": call, "new": {**exported[1]["mapping"]["new"], "parent": "call"}}
    write_json(path, exported)
    text, said, _ = propose(path)
    assert "not used: tool_messages" in said
    report = bench.compile(text)
    assert report.unused.rows["tool_messages"] == 2
    # A picture is not left out of its turn: the row is an error.
    exported[0]["mapping"]["b"]["message"]["content"]["parts"].insert(
        0, {"content_type": "image_asset_pointer"}
    )
    write_json(path, exported)
    said = propose(path)[1]
    assert f"1 of {COUNT} rows would be rejected" in said and "asset_pointer" in said
    for talk in exported:
        parts = [{"content_type": "image_asset_pointer", "asset_pointer": "file-service://x"}, "What is it?"]
        talk["mapping"]["b"]["message"]["content"]["parts"] = parts
    write_json(path, exported)
    with raises(ContentError, "found parts (image_asset_pointer, text)", "spec media"):
        propose(path)


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize(
    "document",
    [
        dict(ANSWERED),
        {f"q{n}": row for n, row in enumerate(FAQ)},
        {question(n): {"answer": answer(n), "page": n} for n in range(COUNT)},
        {f"case {n}": {"input": q, "output": a} for n, (q, a) in enumerate(ANSWERED)},  # not their questions
        {"a": {"data": {"items": FAQ}}},
        {"count": 30, "data": {"v": 1, "items": [{"q": q, "a": a} for q, a in ANSWERED]}},
        {"v": 1, "data": {"items": [{**row, "text_before": "before " * 10_000} for row in FAQ]}},
        {q: [a, "Nobody knows."] for q, a in ANSWERED},
    ],
)
def test_objects_of_rows(bench, document, indent) -> None:
    assert answers(bench, bench.write("data.json", json.dumps(document, indent=indent))) == ANSWERED


def test_two_questions_with_their_answers_are_enough(bench) -> None:
    few = dict(ANSWERED[:2])
    assert answers(bench, bench.write("data.json", json.dumps(few))) == [*few.items()]


def test_conversations_by_id_under_a_key(bench) -> None:
    by_id = {f"talk {n}": exchange(*pair) for n, pair in enumerate(ANSWERED)}
    document = {"version": 1, "conversations": by_id}
    assert talks(bench, bench.write("talks.json", json.dumps(document))) == PROBES


def test_a_table_of_a_database(bench) -> None:
    path = database(
        bench, "t (question text, answer text, n int)", [(*pair, n) for n, pair in enumerate(ANSWERED)]
    )
    with sqlite3.connect(path) as connection:
        connection.execute("create virtual table search using fts5(question, answer, content=t)")
    assert answers(bench, path) == ANSWERED
    database(bench, "other (text text)", [])
    with pytest.raises(ContentError, match="found the tables other, t; name one with --table"):
        propose(path)
    assert answers(bench, path, table="t") == ANSWERED
    with pytest.raises(TuneyardError, match="E012") as caught:
        propose(bench.write("z.db", "no database"))
    golden_text(message_of(caught.value), "SQLite")
    with pytest.raises(ContentError, match="`table` names a table of an SQLite"):
        propose(bench.rows("x.jsonl", FAQ), table="t")


@pytest.mark.parametrize("ending", ["txt", "md"])
def test_a_folder_of_documents_has_a_row_for_each(bench, ending: str) -> None:
    texts = [f"# {n}\n\n{question(n)}\r\n\n{answer(n)}\n" for n in range(9)]
    for n, text in enumerate(texts):
        bench.write(f"docs/{n}.{ending}", text)
    found = records(bench, bench.folder / "docs")
    assert [record["text"] for record in found] == [text.replace("\r", "").strip("\n") for text in texts]


@pytest.mark.parametrize("other", ["dev", "notes"])
def test_folders_that_are_classes_are_named_and_those_that_are_splits_are_kept_apart(bench, other) -> None:
    for split in ("train", "test", other):
        for name in ("neg", "pos"):
            bench.write(f"films/{split}/{name}/1.txt", f"A film that is {name}.\nOf {split}.")
    text, said, _ = propose(bench.folder / "films")
    assert "warning: each file is a row; " in said
    report = bench.compile(text)
    if other == "dev":
        assert report.datasets == {"films_train": 2, "films_eval": 2, "films_test": 2}
        assert "the names of the folders are left out: neg, pos. " in said
    else:
        assert report.datasets == {"films": 6}
        assert "the names of the folders are left out: neg, notes, pos, test, train. " in said
        assert "the files of test are in train, as all others" in said
    with in_language(CHINESE):
        lines = [line for line in translated(said).splitlines() if line.startswith("警告")]
    assert not any(line.isascii() for line in lines) and "没有用到文件夹的名称：neg" in lines[1]


@pytest.mark.parametrize("source", ["docs", "docs.zip"])
def test_documents_in_folders_of_a_folder_or_an_archive_are_read(bench, source) -> None:
    texts = {name: f"Text {name}\n\nand its end" for name in ("b/2.md", "b/c/1.txt", "d/3.txt", ".4.txt")}
    bench.write("docs.zip", as_zip(texts))
    for name, text in texts.items():
        bench.write(f"docs/{name}", text)
    found = records(bench, bench.folder / source)
    assert [record["text"] for record in found] == list(texts.values())[:3]


def test_the_first_annotation_of_label_studio_is_learned_and_the_others_are_named(bench) -> None:
    rows = []
    for n in range(COUNT):
        choices = [[{"value": {"choices": [label]}}] for label in (["pos", "neg"][n % 2], "neg")]
        if n == 9:
            choices = [[]]  # skipped
        annotations = [{"id": n, "result": result} for result in choices[: 1 + n % 3]]
        rows.append({"id": n, "data": {"text": question(n)}, "annotations": annotations})
    source = bench.write("export.json", json.dumps(rows))
    text, report, _ = propose(source, 0)
    assert "not used: annotations (several objects)" in report
    assert "1 of 30 rows would be rejected" in report and "10 texts have another label" in report
    bench.compile(text, reject=True)
    (path,) = (bench.folder / "out").rglob("export*.jsonl")
    expected = [["pos", "neg"][n % 2] for n in range(COUNT) if n != 9]
    assert [record["output"] for record in read_lines(path)] == expected


def test_labels_that_their_annotator_cancelled_are_left_out_and_counted(bench) -> None:
    rows = []
    for n in range(COUNT):
        label = {"value": {"choices": [("bad", "good")[n % 2]]}}
        annotations = [{"was_cancelled": False, "result": [label]}]
        if n % 4 == 0:
            wrong = {"value": {"choices": ["wrong"]}}
            annotations = [{"was_cancelled": True, "result": [wrong]}, *annotations][: 1 + n % 8]
        rows.append({"data": {"text": question(n)}, "annotations": annotations})
    text, report, _ = propose(bench.rows("own.jsonl", rows))
    assert "wrong" not in text and "4 of 30 rows would be rejected" in report
    compiled = bench.compile(bench.write("mine.yaml", text), reject=True)
    (line,) = compiled.unused.lines(COUNT)
    assert compiled.kept == 26 and "cancelled_annotations (8 of 30)" in line


SPAN = {"value": {"start": 0, "end": 4, "text": "What", "labels": ["WORD"]}}


@pytest.mark.parametrize(
    ("row", "path"),
    [
        (
            {"data": {"review": "What is it?"}, "annotations": [{"result": [SPAN, SPAN]}]},
            "annotations.0.result",
        ),
        ({"text": "What is it?", "label": [[0, 4, "NAME"], [5, 9, "PLACE"]]}, "label"),
        ({"body": "What is it?", "state": "open", "labels": [{"name": "bug"}, {"name": "ui"}]}, "labels"),
    ],
)
def test_several_labels_in_a_list_are_no_plain_text(bench, row: dict, path: str) -> None:
    with raises(ContentError, path, "JSON-MIN", "--text"):
        propose(bench.rows("spans.jsonl", [row] * COUNT))


def test_several_labels_of_a_text_are_an_answer_if_the_user_names_them_or_chose_them(bench) -> None:
    rows = [{"text": question(n), "labels": ["late", "broken"][: 1 + n % 2]} for n in range(COUNT)]
    expected = [(question(n), "late\nbroken" if n % 2 else "late") for n in range(COUNT)]
    assert answers(bench, rows, answer="labels") == expected
    chosen = [{"data": row, "result": {"value": {"choices": row.pop("labels")}}} for row in rows]
    assert answers(bench, chosen) == expected


def test_several_labels_of_a_text_are_named_as_left_out(bench) -> None:
    rows = [{"text": question(n), "label": ["a", "b"][: 1 + n % 2] if n % 5 else []} for n in range(COUNT)]
    assert "warning: not used: label (texts)" in propose(bench.rows("doccano.jsonl", rows))[1]


@pytest.mark.parametrize("key", ["comments", "conversation_parts"])
@pytest.mark.parametrize("nested", [True, False])
def test_tickets_with_their_comments_say_what_to_write(bench, key: str, nested: bool) -> None:
    rows = []
    for n in range(COUNT):
        replies = [{"author_id": n, "body": question(n)}, {"author_id": -1, "body": answer(n)}]
        rows.append({"subject": f"Ticket {n} about a line", "description": question(n), key: replies})
    document: object = {"tickets": rows} if nested else rows
    with raises(ContentError, f"the answers are under {key}", '{"messages": ', "--text"):
        propose(bench.write("tickets.json", json.dumps(document)))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_archive_with_two_members_of_one_name_is_refused(bench) -> None:
    path = bench.folder / "two.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for row in FAQ[:2]:
            archive.writestr("a.jsonl", json.dumps(row))
    with pytest.raises(ContentError, match=r"it contains a\.jsonl twice.*; unpack it"):
        propose(path)


def test_an_archive_in_an_archive_is_refused(bench) -> None:
    path = bench.write("outer.zip", as_zip({"a.jsonl": json_lines(FAQ), "b/inner.zip": "PK"}))
    with pytest.raises(ContentError, match=r"it contains the archive b/inner\.zip; unpack it"):
        propose(path)


def test_a_folder_of_different_data_is_refused(bench) -> None:
    bench.write("data/a.csv", "question,answer\none?,1\n")
    bench.rows("data/b.jsonl", [{"text": "good", "label": "pos"}])
    with pytest.raises(ContentError, match=r"a\.csv has the columns answer, question, and .*b\.jsonl has"):
        propose(bench.folder / "data")


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
    text, report, _ = propose(source, out=bench.folder / "calls of mine.yaml")
    assert text.count("dataset:") == 1 and "dataset: calls_of_mine" in text
    assert "calls of mine.yaml holds only the differences." in report


@pytest.mark.parametrize(
    ("header", "second", "first"),
    [
        ("dialogue_id,turn_idx,speaker,utterance", "c{n},2,SYSTEM,{n} says 2", "c{n},1,USER,{n} says 1"),
        (
            "ticket,created,msg_no,author,body",
            "{n},2024-01-01,2,Support,{n} says 2",
            "{n},2024-01-01,1,Customer,{n} says 1",
        ),
        ("session_id,turn,role,content", "c{n},2,Agent,{n} says 2", "c{n},1,customer,{n} says 1"),
        ("ts,call,party,utterance", "1700002,c{n},agent,{n} says 2", "1700001,c{n},customer,{n} says 1"),
        ("id,chat_id,role,content", "100{n},{n},assistant,{n} says 2", "{n},{n},user,{n} says 1"),
        ("call_id,start,speaker,text", "c{n},12.5,agent,{n} says 2", "c{n},9.7,customer,{n} says 1"),
        ("会话编号,轮次,发言者,发言内容", "{n},2,客服小李,{n} says 2", "{n},1,访客,{n} says 1"),
        ("Gespräch,Nr,Rolle,Nachricht", "{n},2,Berater,{n} says 2", "{n},1,Kunde,{n} says 1"),
    ],
    ids=[
        "MultiWOZ",
        "all of one day",
        "turn",
        "a time, and names of no role",
        "ids of messages",
        "seconds of a call",
        "Chinese names of persons",
        "German names",
    ],
)
def test_a_column_that_numbers_the_turns_is_found_by_its_values(bench, header, second, first) -> None:
    expected = [[("user", f"{talk} says 1"), ("assistant", f"{talk} says 2")] for talk in range(COUNT)]
    assert talks(bench, table(bench, "talk.csv", header, by_turn(second, first))) == expected


def test_lines_may_end_with_carriage_returns(bench) -> None:
    texts = [question(n) for n in range(COUNT)]
    found = records(bench, bench.write("old.txt", "\r".join(texts)))
    assert [record["text"] for record in found] == texts


def test_comments_that_are_public_have_no_class_of_that_name(bench) -> None:
    comments = [{"author_id": n % 2, "body": answer(n), "public": n % 3 > 0} for n in range(COUNT)]
    text, report, _ = propose(bench.write("forum.json", json.dumps({"threads": [{"posts": comments}]})))
    assert "about: Plain text" in text and "each row looks like one message of a chat" in report


LINES = [
    ("A line.\nAnother.\nA third one.\nQ: {}\nA: {}\n", "60 of 150 lines look like questions"),
    ("1、{}\n答：{}\n\n", "30 of 60 lines look like questions"),
    ("Q. {}\nA. {}\n", "60 of 60 lines look like questions"),
    ("[Q] {}\n[A] {}\n", "60 of 60 lines look like questions"),
    ("问：{} 答：{}\n", "30 of 30 lines look like questions"),
    ("[10:00 AM] User: {}\n[10:01 AM] Agent: {}\n", "each row looks like one message of a chat"),
    ("00:00:10 Speaker 1\n{}\n\n00:01:10 Speaker 2\n{}\n\n", "each row looks like one message of a chat"),
    ("User: {}\nAgent: {}\nSupervisor: approved.\n\n", "30 lines below a turn follow a blank line"),
    ("Q: {}\nA: {}\n---\n", "30 lines below a turn follow a blank line"),
    ("Q: {}\nA: {}\n\n# Harbours\n\n", "30 lines below a turn follow a blank line"),
    ("Ann (10:00): {}\nBen (10:01): {}\n", "60 of 60 lines look like questions"),
    ("# by Ann\ntitle: {}\nbody: {}\n\n", "60 of 90 lines look like questions"),
]


@pytest.mark.parametrize(("lines", "fact"), LINES)
def test_lines_of_which_a_spec_learns_more_or_less_than_is_meant_are_counted(bench, lines, fact) -> None:
    source = bench.write("notes.txt", "".join(lines.format(*pair) for pair in ANSWERED))
    report = propose(source)[1]
    warning = next(line for line in report.splitlines() if line.startswith("warning: "))
    assert fact in warning
    with in_language(CHINESE):
        chinese = next(line for line in translated(report).splitlines() if line.startswith("警告："))
    assert "lines" not in chinese


@pytest.mark.parametrize("name", sorted(path.name for path in EXPORTS.iterdir()))
def test_what_programs_export_compiles_to_the_golden_records(bench, name, request) -> None:
    found = json_lines(records(bench, EXPORTS / name))
    golden = ROOT / f"tests/golden/compiler/init/{name}"
    if request.config.getoption("regenerate"):
        golden.write_text(found)
    assert found == golden.read_text()


def test_a_dataset_that_is_an_export_is_read_as_llamafactory_reads_it() -> None:
    path = EXPORTS / "hermes.json"
    (rows,) = stored_records(path, "hermes")
    assert rows.rows == json.loads(path.read_text())


def test_lines_with_times_that_are_no_messages_get_no_word_of_a_chat(bench) -> None:
    diary = "".join(f"On 12/03/2024 at 21:{n + 10} it was said: {answer(n)}\n" for n in range(COUNT))
    assert "of a chat" not in propose(bench.write("diary.txt", diary))[1]


@pytest.mark.parametrize("time", ["", "1/1/24, 9:00 PM - "])
def test_a_text_with_two_lines_in_five_that_somebody_says_is_no_chat(bench, time: str) -> None:
    said = "".join(f"{time}Ann: {q}\n{time}Ben: {a}\n" + "It rained.\n" * 3 for q, a in ANSWERED)
    text, report, _ = propose(bench.write("story.txt", said))
    assert "about: Plain text" in text and "and a colon" not in report


@pytest.mark.parametrize(
    ("head", "lines", "reason", "answers"),
    [
        ("# by Ann", [f"__label__{['spam', 'ham'][n % 2]} {a}" for n, (_, a) in enumerate(ANSWERED)],
         "begins with its label", ["spam", "ham"]),
        ("#separator:tab\n#html:true", list(map("\t".join, ANSWERED)), "Anki's cards",
         dict(ANSWERED).values()),
    ],
)  # fmt: skip
def test_lines_of_a_table_are_refused_with_a_command_that_works(bench, head, lines, reason, answers) -> None:
    with pytest.raises(ContentError, match=reason) as refused:
        propose(bench.write("mails.txt", "\n".join([head, *lines, ""])))
    command = str(refused.value).partition("write a table: ")[2].replace("OLD", "mails.txt")
    subprocess.run(command, shell=True, check=True, cwd=bench.folder)
    assert set(outputs(bench, bench.folder / "NEW.tsv")) == set(answers)


def test_lines_of_fields_are_refused_unless_the_user_wants_whole_lines(bench) -> None:
    file = bench.write("notes.txt", "# by Ann\n" + "".join(f"{q};{a}\n" for q, a in ANSWERED))
    with raises(ContentError, "2", "--text text"):
        propose(file)
    assert "like: text" in propose(file, text="text")[0]


def test_lines_of_tokens_and_their_tags_are_refused(bench) -> None:
    sentence = "王 B-PER\n小 I-PER\n明 I-PER\n在 O\n北 B-LOC\n京 I-LOC\n"
    with pytest.raises(ContentError, match=r"a token and its tag .*B-PER"):
        propose(bench.write("msra.txt", f"# text\n{sentence}\n" * COUNT))
    notes = bench.write("notes.txt", f"{sentence}A note of the day.\n" * COUNT)
    assert len(records(bench, notes)) == 7 * COUNT


def test_answers_of_a_batch_without_what_they_answer_are_refused(bench) -> None:
    rows = []
    for _, text in ANSWERED:
        choice = {"message": {"role": "assistant", "content": text}}
        rows.append({"custom_id": f"task-{len(rows)}", "response": {"body": {"choices": [choice]}}})
    source = bench.rows("output.jsonl", rows)
    with pytest.raises(ContentError, match="a model's answers, .* the same custom_id") as refused:
        propose(source)
    path = str(refused.value).rpartition("--text ")[2]
    assert [record["text"] for record in records(bench, source, text=path)] == [text for _, text in ANSWERED]


def test_a_table_of_an_old_mac_has_its_delimiter_in_its_first_line(bench) -> None:
    lines = [
        "Frage;Antwort",
        *(f"{asked_text};Well, {answer_text}" for asked_text, answer_text in ANSWERED),
        "",
    ]
    found = answers(bench, bench.write("mac.csv", "\r".join(lines)))
    assert found == [(asked_text, f"Well, {answer_text}") for asked_text, answer_text in ANSWERED]


def test_the_type_of_a_message_is_no_class_of_it(bench) -> None:
    rows = [{"type": ["Default", "Reply"][n % 2], "content": answer(n)} for n in range(COUNT)]
    assert set(outputs(bench, rows)) == {"Default", "Reply"}
    from_people = [{**row, "author": f"u{len(row['content']) % 5}"} for row in rows]
    text, printed, _ = propose(bench.rows("discord.jsonl", from_people))
    assert yaml.safe_load(text)["like"] == "text"
    assert "one message of a chat (author is its author)" in printed


@pytest.mark.parametrize(
    ("header", "user", "assistant"),
    [
        ("Fall;Zeit;Absender;Nachricht", "31.12.2024 9:00;Kunde", "1.1.2025 10:00;Support"),
        ("case_id;time;role;content", "3/4/2024 11:59 AM;user", "3/4/2024 1:05 PM;assistant"),
        ("case_id;time;role;content", "2024-03-01T10:00:00+02:00;user", "2024-03-01T08:30:00Z;assistant"),
    ],
)
def test_turns_are_ordered_by_their_times(bench, header, user, assistant) -> None:
    lines = [f"{n};{assistant};{answer(n)}" for n in range(COUNT)]
    lines += [f"{n};{user};{question(n)}" for n in range(COUNT)]
    assert talks(bench, table(bench, "verlauf.csv", header, lines)) == PROBES


def test_two_texts_may_be_asked_with_an_answer(bench) -> None:
    rows = [{"subject": f"Report {n}", "mail": question(n), "note": answer(n)} for n in range(COUNT)]
    found = records(bench, bench.rows("mails.jsonl", rows), text="subject", text2="mail", answer="note")
    assert found[0]["output"] == answer(0)
    assert {"Report 0", question(0)} <= {found[0]["instruction"], found[0]["input"]}


@pytest.mark.parametrize("name", ["qa/{}.csv", "{}/qa.csv"])
def test_an_archive_of_splits_is_refused(bench, name):
    source = bench.write(
        "data.zip", as_zip({name.format(split): as_csv(FAQ[:1]) for split in ("train", "test")})
    )
    command = rf"tuneyard data compile qa --source {source}"
    with pytest.raises(ContentError, match=f"the splits test, train, .*: unpack it.*{command}"):
        propose(source)
    bench.compile("qa", source)
    assert {"qa", "qa_test"} <= bench.registry().keys()


@pytest.mark.parametrize(
    "sheets",
    [
        [
            [["Exported by", "CRM"]],
            [["Our FAQ"], ["question", "answer", "date"], *([*pair, "2024-01-01"] for pair in ANSWERED)],
        ],
        [[["Records of the support"], ["Do not pass on"]], [("question", "answer"), *ANSWERED]],
        [
            [
                *(["Our FAQ"], [], ["as of May"], ["No", "question", "answer"]),
                *([n, *pair] for n, pair in enumerate(ANSWERED)),
            ]
        ],
    ],
)
def test_titles_and_sheets_about_the_table_of_a_workbook_are_passed_over(bench, sheets) -> None:
    book = bench.workbook("faq.xlsx", *sheets)
    assert answers(bench, book) == ANSWERED
    assert propose(book)[1].count("W224: only the sheet") == (len(sheets) > 1)


def two_texts_a_prompt(n: int) -> str:
    return f"{n // 2},{answer(n)},{['human', 'gpt'][n % 2]}"


def utterance(n: int) -> str:
    return f"play song {n},{['music', 'news'][n % 2]}"


CLASSES = {
    "utterance,intent": (utterance, {"music", "news"}),
    "话语,意图": (utterance, {"music", "news"}),
    "stars,review_body,product": (lambda n: f"{n % 5 + 1},{answer(n)},B{n % 6}", {"1", "2", "3", "4", "5"}),
    "text,writer": (lambda n: f"{answer(n)},{['human', 'gpt'][n % 2]}", {"human", "gpt"}),
    "prompt_id,text,origin": (two_texts_a_prompt, {"human", "gpt"}),
    "recalled,text,origin": (two_texts_a_prompt, {"human", "gpt"}),
    "use_case,text,origin": (two_texts_a_prompt, {"human", "gpt"}),
    "text,intent_key": (lambda n: f"{answer(n)},{['pay', 'cancel'][n % 2]}", {"pay", "cancel"}),
    "sep=,\ntext,intent": (lambda n: f"{question(n)},{'ab'[n % 2]}", {"a", "b"}),
    "text,topics": (
        lambda n: f'{answer(n)},"[{{""choices"": [""b"", ""a""]}}]"' if n % 2 else f"{n},c",
        {"a, b", "c"},
    ),
    "text,code": (lambda n: f"{answer(n)},0{n % 2}", {"00", "01"}),
}
"""Header, rows and classes. Who wrote a text is its class where no column names a conversation."""


@pytest.mark.parametrize("header", CLASSES)
def test_a_column_of_few_values_is_the_class(bench, header: str) -> None:
    line, classes = CLASSES[header]
    assert set(outputs(bench, table(bench, "t.csv", header, map(line, range(COUNT))))) == classes


def test_standard_answers_of_a_chinese_table_are_answers(bench) -> None:
    lines = [
        f"{n},第{n}个问题是什么？,第{n}个问题的答案在这里,{['物流', '售后'][n % 2]}" for n in range(COUNT)
    ]
    source = table(bench, "faq.csv", "序号,问题,标准答案,业务分类", lines)
    assert outputs(bench, source)[0] == "第0个问题的答案在这里"


@pytest.mark.parametrize(
    ("header", "user", "assistant"),
    [
        ("case,who,message", "{n},customer,Hello {n}?", "{n},agent,Yes."),
        ("ref_no,party,message", "{n},Customer,Hello {n}?", "{n},Agent,Yes."),  # these names alone make turns
        ("ticket,direction,message", "{n},inbound,Hello {n}?", "{n},outbound,Yes."),
    ],
)
def test_speakers_are_found_by_their_names(bench, header, user, assistant) -> None:
    source = table(bench, "talk.csv", header, by_talk(user, assistant))
    assert talks(bench, source)[3] == [("user", "Hello 3?"), ("assistant", "Yes.")]


@pytest.mark.parametrize("notes", [5, COUNT])
def test_a_speaker_without_a_meaning_is_named_and_makes_no_class(bench, notes) -> None:
    lines = ["conversation_id,role,content"]
    for talk in range(COUNT):
        lines += [f"{talk},user,Hello {talk}?", f"{talk},assistant,Yes."]
        lines += [f"{talk},note,Kind.", f"{talk},supervisor,Good."] if talk < notes else []
    source = bench.write("talk.csv", "\n".join(lines))
    if notes < COUNT:
        text, report, _ = propose(source)
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
    [("time", ["9:05", "noon"]), ("turn", ["0.5", "10.50"])],
)
def test_turns_whose_time_cannot_order_them_are_named(bench, name, values) -> None:
    lines = by_turn("c{n}|user|Hello.|" + values[0], "c{n}|assistant|Hello.|" + values[1])
    _, report, _ = propose(table(bench, "talk.csv", f"conversation_id|role|content|{name}", lines))
    expected = f"the turns stay in the order of the file, because {name} cannot order them ({values[0]})"
    assert expected in report


def test_a_text_that_begins_as_a_list_is_a_text_in_json_lines(bench) -> None:
    texts = [f'[{{"a": {n}}}] is what was printed.' for n in range(COUNT)]
    found = records(bench, [{"text": text} for text in texts])
    assert [record["text"] for record in found] == texts


def test_short_chinese_texts_are_prose_and_ids_are_no_classes(bench) -> None:
    lines = [f"K{n % 3},第{n}件用了两天就坏,{['好评', '差评'][n % 2]}" for n in range(COUNT)]
    asked, learned = answers(bench, table(bench, "c.csv", "编号,评价内容,口碑", lines))[0]
    assert asked.startswith("第0件用了两天就坏\n") and learned == "好评"


def test_a_truth_value_is_a_class_and_next_to_an_answer_it_is_named(bench) -> None:
    assert outputs(bench, [{"mail": answer(n), "spam": n % 2 == 0} for n in range(COUNT)])[:2] == [
        "yes",
        "no",
    ]
    marks = [{"checked": True}, {"checked": False, "feedback": "like"}, {"feedback": "bad"}]
    source = bench.rows("checked.jsonl", [row | marks[n % 3] for n, row in enumerate(FAQ)])
    assert "not used: checked (truth value), feedback (text)" in propose(source)[1]


def test_two_columns_of_prose_are_question_and_answer_with_a_warning(bench) -> None:
    rows = [{"id": n, "titre": question(n), "texte": answer(n)} for n in range(COUNT)]
    source = bench.rows("notes.jsonl", rows)
    assert answers(bench, source) == ANSWERED
    assert "warning: texte is used as the answer to titre" in propose(source)[1]


def test_a_row_nested_too_deep_is_refused_with_its_place(bench) -> None:
    path = bench.write("deep.jsonl", '{"k":' * 980 + '"a"' + "}" * 980)
    with pytest.raises(ContentError) as caught:
        propose(path)
    assert str(caught.value).startswith(f"{path}:1: ")


def test_a_text_of_many_nested_brackets_is_a_text(bench) -> None:
    brackets = '[{"a":' * 20_000
    assert outputs(bench, [row | {"answer": brackets} for row in FAQ])[0] == brackets


@pytest.mark.parametrize("column", [{"preference": "tea"}, {"liked": 2}])
def test_a_preference_of_somebody_and_a_count_beside_an_answer_are_no_ranking(bench, column) -> None:
    assert answers(bench, [row | column for row in FAQ]) == ANSWERED


def test_an_exported_folder_is_refused_with_the_file_to_give(bench) -> None:
    bench.rows("export/conversations.json", [{"id": "a", "messages": [{"role": "user", "content": "Hi"}]}])
    bench.rows("export/user.json", [{"id": "u", "email": "a@example.org"}])
    with pytest.raises(ContentError, match=r"data init \S*export/conversations\.json"):
        propose(bench.folder / "export")


@pytest.mark.parametrize(
    ("name", "text", "fix"),
    [
        ("a.json", "[{'prompt': 'a', 'completion': 'b'}]", r"ast\.literal_eval.* < OLD > NEW\.json$"),
        ("a.txt", '[\n {\n  "prompt": "a", "completion": "b"}\n]', "name it .json"),
        ("a.jsonl", '{"prompt": "a", "completion": "b"},\n' * 3, "sed "),
        ("a.jsonl", "{'question': 'why', 'answer': 'so'}\n" * COUNT, "Python's notation"),
        ("a.txt", '{"question": "why", "answer": "so"}\n' * COUNT, "name it .jsonl"),
        ("b.txt", '{"question": "why", "answer": "so"}\n' * COUNT + '{"question": "cut\n', "name it .jsonl"),
        (
            "c.txt",
            "key\ttext\tnote\n" + "a\tIt is long enough.\t\nb\tIt is short.\tno\n" * COUNT,
            "name it .csv",
        ),
    ],
)
def test_documents_and_lines_of_objects_that_are_no_json_lines_are_told_the_way(bench, name, text, fix):
    with pytest.raises(ContentError, match=fix):
        propose(bench.write(name, text))


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("update_note", ["n2", "n1"]),
        ("response_time", ["9.5", "5.5"]),
    ],
)
def test_turns_stay_in_the_order_of_the_file_unless_a_time_sorts(bench, name, values) -> None:
    lines = by_talk("c{n},customer,Hello {n}?," + values[0], "c{n},agent,Yes.," + values[1])
    source = table(bench, "calls.csv", f"call,party,utterance,{name}", lines)
    assert talks(bench, source)[0] == [("user", "Hello 0?"), ("assistant", "Yes.")]


def test_a_folder_of_conversations_may_have_ids_in_one_file_and_tools_in_another(bench) -> None:
    turns = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]
    bench.rows("chats/a.jsonl", [{"id": "a", "conversations": turns}])
    bench.rows("chats/b.jsonl", [{"conversations": turns, "tools": ""}])
    assert len(records(bench, bench.folder / "chats")) == 2


def test_a_text_is_the_class_before_a_truth_value(bench) -> None:
    queues = ("repair", "bills", "bills")
    rows = [{"description": answer(n), "queue": queues[n % 3], "solved": n % 2 == 0} for n in range(COUNT)]
    assert set(outputs(bench, rows)) == {"bills", "repair"}


@pytest.mark.parametrize("mark", [{"meta": {"is_scan": True}}, {"flag": None}])
def test_a_mark_of_some_rows_or_in_their_metadata_is_no_class(bench, mark) -> None:
    other = {"meta": {"is_scan": False}} if "meta" in mark else {"flag": True}
    rows = [{"text": answer(n), **(mark if n % 2 else other)} for n in range(COUNT)]
    rows[0] |= {"flag": False} if "flag" in mark else {}
    assert records(bench, rows)[1]["text"] == answer(1)


def test_a_line_that_is_cut_is_not_said_to_end_with_a_comma_too_many(bench) -> None:
    lines = [*map(json.dumps, FAQ), '{"question": "Why?",']
    _, report, _ = propose(bench.write("cut.jsonl", "\n".join(lines)))
    assert "E002: broken JSON at column" in report and "sed" not in report


def test_a_document_of_questions_is_told_how_to_be_read(bench) -> None:
    said = "\n\n".join(f"## Prompt:\n{q}\n\n## Response:\n{a}" for q, a in ANSWERED)
    _, report, _ = propose(bench.write("faq.md", f"# A chat\n\n{said}"))
    assert re.search(rf"\b{COUNT} of \d+ lines look like questions, turns or fields", report)
    assert "write `Q:` before each question" in report


def test_classes_have_the_names_that_parquet_keeps_beside_their_numbers(bench) -> None:

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
    _, report, _ = propose(bench.write("more.csv", "\n".join([*lines, "ham,is,it,,"])))
    assert "1 of 31 rows would be rejected" in report and "found 3 fields, expected 2" in report


def test_of_sheets_the_first_table_is_read_and_the_others_are_named(bench) -> None:
    texts = [["text"], *([answer(n)] for n in range(COUNT))]
    metrics = [["metric", "value"], ["rows", COUNT]]
    path = bench.workbook("texts.xlsx", texts, metrics)
    with raises(ContentError, "texts.xlsx", "Sheet1", "not Sheet", "save each sheet"):
        propose(path)
    pairs = [("question", "answer"), *ANSWERED]
    assert (
        answers(bench, bench.workbook("two.xlsx", pairs, [*metrics, *([n, n] for n in range(99))]))
        == ANSWERED
    )
    book = bench.workbook("texts_alone.xlsx", [["text"]], texts)  # a sheet of a header alone has no rows
    assert records(bench, book)[0]["text"] == answer(0)


def test_turns_come_before_turns_written_as_text(bench) -> None:
    turns = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]
    found = talks(bench, [{"log": OLD, "conversations": turns}] * COUNT)
    assert found[0] == [("user", "Hi"), ("assistant", "Hello")]


REFUSED = {
    "turns of no conversation": (
        [{"role": ("user", "assistant")[n % 2], "content": question(n)} for n in range(COUNT)],
        "to which conversation it belongs",
    ),
    "a chat of SillyTavern": (
        [{"chat_metadata": {}}]
        + [{"name": "AB"[n % 2], "is_user": not n % 2, "mes": question(n)} for n in range(COUNT)]
        + [{"name": "B", "is_user": False, "mes": answer(n), "swipe_id": 0} for n in range(2)],
        "is_user.* to which conversation it belongs",
    ),
    "premises without labels": ([{"premise": "a", "hypothesis": "b"}], "nothing in it looks like"),
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
            {"prompt": question(n), "response_a": answer(n), "response_b": "No.", "choice": "ab"[n % 2]}
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


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_names_of_labels_in_objects_have_a_command_for_the_type_of_the_file(bench, suffix) -> None:
    """jq reads no Parquet: there pandas takes the names."""
    rows = [
        {
            "text": f"Text number {n} about a thing.",
            "labels": [{"name": "a", "id": n}, {"name": "b", "id": n}],
        }
        for n in range(COUNT)
    ]
    source = bench.rows("labels.jsonl", rows)
    if suffix == "parquet":
        source = bench.folder / "labels.parquet"
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), source)
    with pytest.raises(ContentError) as error:
        propose(source)
    assert ("jq -c" in str(error.value)) == (suffix == "jsonl")
    assert ("df['labels'].map(" in str(error.value)) == (suffix == "parquet")
