"""What other tools let pass in silence, and turn into rows that teach something wrong, is named here.

A plain loop makes label -1 "no" (an index from the end), true "maybe", null the text "None", and leaves
half a file at a lone surrogate; datasets makes a missing premise "None", skips blank lines in its row
numbers; datatrove ends a file at a bad byte with exit 0; polars turns null into a null instruction;
data-juicer passes null, numbers, NaN and misspelt keys; JSON Schema lets 1.0 pass as an integer.
"""

import json

from tests.unit.compiler.conftest import ROWS

LINES = [json.dumps(ROWS[n % 3] | {"idx": n, "sentence1": f"Sentence {n}."}) for n in range(12)]


def test_one_point_nought_is_one_and_a_name_nearly_right_is_asked_about(bench):
    rows = [ROWS[0] | {"label": 1.0}, ROWS[1] | {"label": "entailmnet"}]
    report = bench.compile_rows("rte", rows, reject=True)
    assert report.problems.errors[0].hint == 'did you mean "entailment"?'
    assert bench.first("alpaca_rte-train.json")["output"] == "no"


def test_line_numbers_hold_far_into_a_file(bench):
    lines = [json.dumps(ROWS[0] | {"idx": n}) for n in range(5_000)]
    lines[4_000] = json.dumps(ROWS[0] | {"label": 7})
    report = bench.compile("rte", bench.write("train.jsonl", "\n".join(lines)))
    assert [(p.code, p.place.rsplit(":", 1)[1]) for p in report.problems.errors] == [("E104", "4001")]


def test_values_in_messages_are_json_and_cut(bench):
    report = bench.compile_rows("rte", [ROWS[0] | {"label": "x" * 500}])
    message = report.problems.errors[0].message
    assert len(message) < 140 and "…" in message


def test_a_bad_line_is_named_with_its_number_and_the_rest_is_checked(bench):
    bad = json.dumps(ROWS[0]).encode().replace(b"red", b"r\xe9d")
    later = json.dumps(ROWS[0] | {"label": 9})
    first, second = LINES[:5], [*LINES[5:], later]
    text = b"\n".join([*(x.encode() for x in first), b"", bad, *(x.encode() for x in second)])
    report = bench.compile("rte", bench.write("train.jsonl", text))
    assert bench.codes(report) == [("E001", "train.jsonl:7"), ("E104", "train.jsonl:15")]
    assert (report.read, report.problems.bad_rows) == (14, 2)
    assert not bench.out.exists()
