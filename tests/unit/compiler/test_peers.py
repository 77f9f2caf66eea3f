"""What other tools let pass in silence, and turn into rows that teach something wrong, is named here.

A plain loop makes label -1 "no" (an index from the end), true "maybe", null the text "None", and leaves
half a file at a lone surrogate; datasets makes a missing premise "None", skips blank lines in its row
numbers; datatrove ends a file at a bad byte with exit 0; polars turns null into a null instruction;
data-juicer passes null, numbers, NaN and misspelt keys; JSON Schema lets 1.0 pass as an integer.
"""

import json

from tests.unit.compiler.conftest import ROWS


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
