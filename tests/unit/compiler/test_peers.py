"""What other tools let pass in silence, and turn into rows that teach something wrong, is named here.

A plain loop makes label -1 "no" (an index from the end), true "maybe", null the text "None", and leaves
half a file at a lone surrogate; datasets makes a missing premise "None", skips blank lines in its row
numbers; datatrove ends a file at a bad byte with exit 0; polars turns null into a null instruction;
data-juicer passes null, numbers, NaN and misspelt keys; JSON Schema lets 1.0 pass as an integer.
"""

import json

import pytest

from tests.unit.compiler.conftest import ROWS

LINES = [json.dumps(ROWS[n % 3] | {"idx": n, "sentence1": f"Sentence {n}."}) for n in range(12)]


def test_one_point_nought_is_one_and_a_name_nearly_right_is_asked_about(bench):
    rows = [ROWS[0] | {"label": 1.0}, ROWS[1] | {"label": "entailmnet"}]
    report = bench.compile_rows("rte", rows, reject=True)
    assert report.problems.errors[0].hint == 'did you mean "entailment"?'
    assert bench.first("alpaca_rte-train.json")["output"] == "no"


def test_columns_in_another_order_and_columns_that_nobody_asked_for(bench):
    text = "label\tnote\tsentence2\tidx\tsentence1\n0\tx\tB.\t7\tA.\n"
    bench.compile("rte", bench.write("train.tsv", text))
    record = bench.first("alpaca_rte-train.json")
    assert record["instruction"].startswith('Does "A." imply that "B."?') and record["output"] == "yes"
    assert record["idx"] == 7 and set(record) == {"instruction", "input", "output", "idx"}


def test_line_numbers_hold_far_into_a_file(bench):
    lines = [json.dumps(ROWS[0] | {"idx": n}) for n in range(20_000)]
    lines[19_000] = json.dumps(ROWS[0] | {"label": 7})
    report = bench.compile("rte", bench.write("train.jsonl", "\n".join(lines)))
    assert [(p.code, p.place.rsplit(":", 1)[1]) for p in report.problems.errors] == [("E104", "19001")]


def test_values_in_messages_are_json_and_cut(bench):
    report = bench.compile_rows("rte", [ROWS[0] | {"label": "x" * 500}])
    message = report.problems.errors[0].message
    assert len(message) < 140 and "…" in message


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (json.dumps(ROWS[0] | {"label": True}), "E104"),
        (json.dumps(ROWS[0])[:-1] + ', "label": 1}', "E006"),
        ("[" * 3000, "E002"),
        (json.dumps(ROWS[0]).encode().replace(b"red", b"r\xe9d"), "E001"),
        (json.dumps(ROWS[0]) + json.dumps(ROWS[0]), "E002"),
    ],
)
def test_a_bad_line_is_named_with_its_number_and_the_rest_is_checked(bench, line, code):
    later = json.dumps(ROWS[0] | {"label": 9})
    raw = [line if isinstance(line, bytes) else line.encode()]
    text = b"\n".join(
        [*(x.encode() for x in LINES[:5]), b"", *raw, *(x.encode() for x in LINES[5:]), later.encode()]
    )
    report = bench.compile("rte", bench.write("train.jsonl", text))
    assert bench.codes(report) == [(code, "train.jsonl:7"), ("E104", "train.jsonl:15")]
    assert (report.read, report.problems.bad_rows) == (14, 2)
    assert not bench.out.exists()


def test_only_the_first_thousand_messages_are_kept_and_all_are_counted(bench):
    report = bench.compile_rows("rte", [ROWS[0] | {"label": 7}] * 5000)
    assert len(report.problems.errors) == 1000
    assert report.problems.counts == {"E104": 5000}
