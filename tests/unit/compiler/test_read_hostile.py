"""Values that break readers and writers (huge, deep, half characters, bytes): problems with a place."""

import datetime
import decimal
import json
import os

import pytest

from tests.unit.compiler.conftest import ROWS, as_parquet

SPEC = """
about: a test
columns: {q: [q], a: [a], k: {names: [k], is: any}}
write: [{file: t.jsonl, format: alpaca, instruction: "{q}", output: "{a}", keep: [k]}]
"""
DIGITS = "9" * 5000


def deep(depth: int) -> str:
    return "[" * depth + "]" * depth


@pytest.mark.parametrize("layout", ["jsonl", "json"])
@pytest.mark.parametrize("reject", [False, True])
@pytest.mark.parametrize(
    ("changes", "codes"),
    [
        ({"extra": DIGITS}, ["E002"]),
        ({"extra": deep(300)}, []),
        ({"label": DIGITS}, ["E002"]),
        ({"label": deep(900)}, ["E104"]),
        ({"sentence1": deep(900)}, ["E105"]),
        ({"idx": str(10**30)}, ["E105"]),
        ({"idx": "-1e999"}, ["E002"]),
        ({"sentence1": '"\\ud83d"'}, ["E002"]),
    ],
)
def test_a_hostile_value_is_a_problem_with_its_line_or_harmless(bench, layout, reject, changes, codes):
    good = {key: json.dumps(value) for key, value in ROWS[0].items()}
    rows = [
        "{" + ",".join(f'"{k}":{v}' for k, v in row.items()) + "}" for row in (good, good | changes, good)
    ]
    text = "\n".join(rows) if layout == "jsonl" else "[" + ",\n".join(rows) + "]"
    report = bench.compile("rte", f"train={bench.write(f'train.{layout}', text)}", reject=reject)
    assert [(p.code, p.place.rsplit(":", 1)[1]) for p in report.problems.errors] == [(c, "2") for c in codes]
    if reject and codes:
        aside = (bench.out / "rte/rejected.jsonl").read_text()
        assert json.loads(aside)["problems"][0].startswith(codes[0])


@pytest.mark.parametrize(
    "value", [b"\xff", decimal.Decimal("1.5"), datetime.timedelta(1), {"b": b"x"}, [b"x"], float("nan")]
)
def test_what_json_cannot_hold_is_no_kept_value(bench, value):
    source = bench.write("t.parquet", as_parquet([{"q": "a", "a": "b", "k": value}]))
    report = bench.compile(SPEC, source)
    assert bench.codes(report) == [("E105", "t.parquet row 1")]


def test_a_kept_value_that_a_row_lacks_is_named(bench):
    rows = [{"q": "a", "a": "b", "k": 1}, {"q": "c", "a": "d"}]
    report = bench.compile_rows(SPEC, rows)
    assert bench.codes(report) == [("E102", "train.jsonl:2")]


def test_a_file_name_that_is_no_text_is_escaped(bench):
    source = bench.rows(os.fsdecode(b"train-\xff.jsonl"), ROWS)
    assert not bench.compile("rte", source).failed
    manifest = bench.manifest("rte")
    assert manifest["made_from"]["sources"][0]["path"].endswith("train-\\xff.jsonl")


def test_problems_of_reader_and_checks_stand_in_the_order_of_lines(bench):
    good, bad = json.dumps(ROWS[0]), json.dumps(ROWS[0] | {"label": 7})
    text = "\n".join([good, bad, "{", bad, "[]", bad])
    report = bench.compile("rte", bench.write("train.jsonl", text), reject=True)
    assert [place for _, place in bench.codes(report)][:5] == [f"train.jsonl:{n}" for n in range(2, 7)]
    aside = [json.loads(line)["place"] for line in (bench.out / "rte/rejected.jsonl").open()]
    assert [place.rsplit(":", 1)[1] for place in aside] == ["2", "3", "4", "5", "6"]


def test_a_parquet_file_with_a_value_that_python_cannot_hold_is_refused(bench, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet

    no_text = pa.array([b"fine", b"\xff"]).view(pa.string())
    far = pa.array([0, 2**60], pa.timestamp("us"))
    nowhere = pa.array([0, 1], pa.timestamp("us", "Mars/Phobos"))
    for values in (no_text, far, nowhere):
        table = pa.table({"q": ["a", "b"], "a": ["x", "y"], "k": values})
        pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
        report = bench.compile(bench.write("t.yaml", SPEC), tmp_path / "t.parquet", reject=True)
        assert bench.codes(report) == [("E012", "t.parquet row 1")]
        assert "export the file again" in report.problems.errors[0].line()
