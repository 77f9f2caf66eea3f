"""The split that init proposes: by hash, with a seed that brings each class into each split."""

import random
from collections import Counter

import pytest
import yaml

from tests.messages import printed_line
from tests.unit.compiler.conftest import as_csv, exchange, questions
from tuneyard.compiler.init.command import propose

TEXTS = {
    "Rechnung": ["charged twice", "invoice is wrong", "发票金额错了"],
    "Versand": ["parcel is late", "快递丢了", "change the address"],
    "Konto": ["cannot log in", "忘记密码", "delete my account"],
}


def tickets(sizes, start=0):
    """Tickets of classes, so many of each, each with a number of its own."""
    names = [name for name, count in sizes.items() for _unused in range(count)]
    random.Random(start).shuffle(names)
    rows = []
    for number, name in enumerate(names, start):
        texts = TEXTS.get(name, ["something else"])
        rows.append({"message": f"{texts[number % len(texts)]}, case {number}", "queue": name})
    return rows


def split_of_each(bench, key="instruction"):
    """The split of each prompt that was compiled, and of each class in it the number of rows."""
    sides, classes = {}, {}
    for path in bench.out.rglob("*_*.jsonl"):
        split = path.stem.rpartition("_")[2]
        rows = bench.records(path.name)
        classes[split] = Counter(str(row.get("output")) for row in rows)
        sides |= {str(row[key]): split for row in rows}
    return sides, classes


@pytest.mark.parametrize("sizes", [(140, 140, 140), (390, 20, 12), (67, 67, 67)])
def test_more_rows_move_no_old_row_and_each_class_is_in_each_split(bench, sizes):
    rows = tickets(dict(zip(TEXTS, sizes, strict=True)))
    text, report, _ = propose(bench.write("t.csv", as_csv(rows)))
    split = yaml.safe_load(text)["split"]
    assert split == {"test": 0.2, "eval": 0.1, "by": "hash", "seed": split["seed"]}
    assert "too few" not in report
    assert not bench.compile(text).problems.counts["W217"]
    before, classes = split_of_each(bench)
    assert classes.keys() == {"train", "test", "eval"}
    assert all(classes[name].keys() == TEXTS.keys() for name in classes)
    total = len(rows)
    assert abs(classes["test"].total() - 0.2 * total) <= 0.1 * total * 0.2
    assert abs(classes["eval"].total() - 0.1 * total) <= 0.1 * total * 0.1
    rows += tickets(dict.fromkeys(TEXTS, 17), start=1000)
    random.Random(5).shuffle(rows)
    bench.write("t.csv", as_csv(rows))
    assert not bench.compile(text).problems.counts["W435"]
    after, _ = split_of_each(bench)
    assert len(after) == len(rows) and {prompt: after[prompt] for prompt in before} == before


@pytest.mark.parametrize(
    ("rows", "splits"),
    [(19, {}), (20, {"test": 0.2}), (199, {"test": 0.2}), (200, {"test": 0.2, "eval": 0.1})],
)
def test_the_rows_decide_on_the_splits(bench, rows, splits):
    spec = yaml.safe_load(propose(bench.rows("qa.jsonl", questions(rows)))[0])
    split = spec.get("split", {})
    assert {name: share for name, share in split.items() if name not in ("by", "seed")} == splits
    assert split.get("by") == ("hash" if splits else None)


@pytest.mark.parametrize(
    ("share", "splits"),
    [(0.0, {}), (0.3, {"test": 0.3, "eval": 0.1}), (0.95, {"test": 0.95})],
)
def test_the_users_share_is_that_of_test(bench, share, splits):
    split = yaml.safe_load(propose(bench.rows("qa.jsonl", questions(300)), share)[0]).get("split", {})
    assert {name: value for name, value in split.items() if name not in ("by", "seed")} == splits


def test_a_class_with_too_few_rows_is_named_with_their_number(bench):
    rows = tickets({"Rechnung": 150, "Versand": 140, "Konto": 9, "Lob": 2})
    text, report, _ = propose(bench.write("t.csv", as_csv(rows)))
    line = printed_line(report, "too few", "train", "test", "eval", '"Konto"', "(9)", '"Lob"', "(2)")
    assert "Rechnung" not in line and line.removeprefix("warning: ") in text


def test_the_rows_of_a_group_count_as_one(bench):
    rows = tickets({"Rechnung": 200, "Versand": 100})
    for number, row in enumerate(rows):
        row["customer_id"] = f"c{number % 60}" if row["queue"] == "Rechnung" else f"v{number % 5}"
    text, report, _ = propose(bench.write("t.csv", as_csv(rows)), text="message", label="queue")
    assert yaml.safe_load(text)["split"]["group"] == "group"
    assert "Rechnung" not in printed_line(report, "too few", "groups", '"Versand"', "(5)")


def test_rows_with_one_prompt_are_not_split(bench):
    rows = [{"question": "Say a number.", "answer": f"It is {number}."} for number in range(300)]
    text, report, _ = propose(bench.rows("one.jsonl", rows))
    assert "split" not in yaml.safe_load(text)
    printed_line(report, "no split", "1 prompt")


def test_messages_one_a_row_count_as_conversations(bench):
    """240 rows are 60 conversations: an eval split would have six."""
    rows = []
    for number in range(60):
        turns = [*exchange(f"Question {number}?", "Yes."), *exchange("And?", f"{number}.")]
        for position, turn in enumerate(turns):
            rows.append({"conversation_id": f"c{number}", "turn": position, **turn})
    text, _, _ = propose(bench.write("chats.csv", as_csv(rows)))
    assert yaml.safe_load(text)["split"].keys() >= {"test"} and "eval" not in yaml.safe_load(text)["split"]
    assert bench.compile(text).kept == 60


@pytest.mark.parametrize(
    "make_row",
    [
        lambda n: {"messages": exchange(f"Question {n}?", f"Answer {n}.")},
        lambda n: {"text": f"A document about the number {n}, and about nothing else at all."},
        lambda n: {"prompt": f"Question {n}?", "chosen": f"good {n}", "rejected": f"bad {n}"},
        lambda n: {"prompt": f"Question {n}?", "completion": f"Answer {n}.", "label": n % 2 == 0},
    ],
)
def test_every_kind_of_rows_is_drawn_near_its_shares(bench, make_row):
    text, _, _ = propose(bench.rows("rows.jsonl", [make_row(n) for n in range(250)]))
    records = bench.compile(text).datasets
    assert 46 <= records["rows_test"] <= 54 and 22 <= records["rows_eval"] <= 28
    assert sum(records.values()) == 250


def test_rows_that_the_compile_rejects_do_not_count(bench):
    rows = [*questions(210), *({"question": f"bad {n}", "answer": n} for n in range(20))]
    text, _, _ = propose(bench.rows("qa.jsonl", rows))
    records = bench.compile(text, reject=True).datasets
    assert sum(records.values()) == 210 and 40 <= records["qa_test"] <= 44 and 19 <= records["qa_eval"] <= 23
