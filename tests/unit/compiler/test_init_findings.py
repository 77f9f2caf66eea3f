"""What init sees in the rows: HTML, words for no answer, repeated rows, classes in two scripts."""

import pytest
import yaml

from tests.messages import printed_line
from tests.unit.compiler.conftest import as_csv, questions
from tuneyard.compiler.init.command import propose

CLASSES = {
    "refund": "I want the money for order {} back",
    "shipping": "The parcel {} is late",
    "account": "Login {} fails",
}


def tickets(count: int) -> list[dict]:
    """Rows with a message, a class and a reply."""
    rows = []
    for number in range(count):
        name = list(CLASSES)[number % 3]
        text = CLASSES[name].format(number)
        rows.append({"message": text, "queue": name, "reply": f"We look at case {number}, thank you."})
    return rows


def test_four_hundred_tickets_compile_as_proposed(bench):
    """Chinese and English, HTML in 58 rows, 35 repeated rows, classes in two scripts, three long rows."""
    rows = [{key: row[key] for key in ("message", "queue")} for row in tickets(365)]
    for row in rows[:58]:
        row["message"] = f"<p>{row['message']}<br>thanks</p>"
    for number in range(100, 140):
        rows[number] = {"message": f"订单{number}请退款", "queue": "退款"}
    for row in rows[110:113]:
        row["message"] += " lorem ipsum" * 4000
    rows += rows[200:235]
    for name, encoding in (("tickets.csv", "utf-8"), ("gbk.csv", "gb18030")):
        text, report, _ = propose(bench.write(name, as_csv(rows).encode(encoding)))
        spec = yaml.safe_load(text)
        assert spec["clean"] == ["html"] and spec["drop_duplicates"] is True
        printed_line(report, "HTML", "58 of 400")
        printed_line(report, "drop_duplicates", "35 of 400")
        printed_line(report, "two scripts", '"退款" (40)', '"shipping" (119)', "refund: [refund, 退款]")
        compiled = bench.compile(text)
        assert (compiled.read, compiled.kept, compiled.dropped) == (400, 365, {"duplicate": 35})
        assert not compiled.problems.warnings
        train = bench.records(f"{name[:-4]}_train.jsonl")
        assert not any("<p>" in record["instruction"] for record in train)
        assert any("请退款" in record["instruction"] for record in train)


@pytest.mark.parametrize("word", ["N/A", "#N/A", "nan", " n/a "])
def test_rows_with_a_word_for_no_answer_are_dropped(bench, word):
    rows = questions(60)
    for row in rows[10:17]:
        row["answer"] = word
    for row in rows[20:22]:
        row["answer"] = ""
    text, report, _ = propose(bench.rows("qa.jsonl", rows))
    assert yaml.safe_load(text)["empty"] == [word.strip()]
    printed_line(report, "answer", "9 of 60", "`empty`")
    compiled = bench.compile(text)
    assert (compiled.kept, compiled.dropped) == (51, {"no answer": 9})


def test_a_word_that_may_be_an_answer_is_a_line_to_uncomment(bench):
    rows = questions(60)
    for row in rows[10:17]:
        row["answer"] = "无"
    text, report, _ = propose(bench.rows("qa.jsonl", rows))
    assert "empty" not in yaml.safe_load(text) and text.endswith('# empty: ["无"]\n')
    printed_line(report, "7 of 60", "uncomment", '"无"')
    edited = text.removesuffix('# empty: ["无"]\n') + 'empty: ["无"]\n'
    assert bench.compile(edited).dropped == {"no answer": 7}


def test_a_class_that_is_a_word_for_none_is_unlabelled(bench):
    rows = tickets(60)
    for row in rows[:4]:
        row["queue"] = "N/A"
    text, _, _ = propose(bench.write("t.csv", as_csv(rows)), text="message", label="queue")
    assert yaml.safe_load(text)["labels"]["unlabelled"] == ["N/A"]
    assert bench.compile(text).dropped == {"no gold label": 4}


def test_html_that_is_meant_is_a_line_to_uncomment(bench):
    rows = [{"question": f"Write HTML number {n}.", "answer": f"<p>It is {n}.</p>"} for n in range(30)]
    text, report, _ = propose(bench.rows("code.jsonl", rows))
    assert "clean" not in yaml.safe_load(text) and text.endswith("# clean: [html]\n")
    printed_line(report, "HTML", "30 of 30", "uncomment")


def test_rows_that_are_repeated_on_purpose_stay(bench):
    text, report, _ = propose(bench.rows("qa.jsonl", questions(20) * 4))
    assert "drop_duplicates" not in yaml.safe_load(text) and text.endswith("# drop_duplicates: true\n")
    printed_line(report, "60 of 80", "uncomment")


def test_repeated_rows_are_seen_next_to_bad_ones(bench):
    rows = [*questions(50), *questions(5), {"question": " ", "answer": "A."}]
    text, report, _ = propose(bench.rows("qa.jsonl", rows))
    assert yaml.safe_load(text)["drop_duplicates"] is True
    printed_line(report, "5 of 56", "drop_duplicates")


def test_training_rows_of_another_split_are_left_out(bench):
    folder = bench.folder / "set"
    bench.rows("set/train.jsonl", questions(40))
    bench.rows("set/test.jsonl", questions(6))
    text, report, _ = propose(folder)
    assert yaml.safe_load(text)["drop_leaks"] is True
    printed_line(report, "6 rows of train", "drop_leaks")
    assert bench.compile(text).datasets == {"set_train": 34, "set_test": 6}


def test_a_clean_file_gets_no_key_and_no_line(bench):
    text, report, _ = propose(bench.rows("qa.jsonl", questions(60)))
    assert not yaml.safe_load(text).keys() & {"clean", "empty", "drop_duplicates", "drop_leaks"}
    assert "warning" not in report and not text.splitlines()[-1].startswith("#")
