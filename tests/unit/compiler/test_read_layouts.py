"""Every layout of the same rows compiles to the same bytes, by the document's template."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.compiler.conftest import ROWS, layouts

TEMPLATE = (
    'Does "{}" imply that "{}"? Please answer yes or no.You only need to answer one word, no explanation'
)


def expected(rows):
    names = {0: "yes", 1: "no"}
    return [
        {
            "instruction": TEMPLATE.format(row["sentence1"], row["sentence2"]),
            "input": "",
            "output": names[row["label"]],
            "idx": row["idx"],
        }
        for row in rows
    ]


@pytest.mark.parametrize("name", layouts(ROWS))
def test_every_layout_gives_the_same_records(bench, name):
    source = bench.write(name, layouts(ROWS)[name])
    report = bench.compile("rte", f"train={source}")
    assert (report.read, report.kept, report.datasets) == (3, 3, {"alpaca_rte_train": 3})
    text = next(bench.out.rglob("alpaca_rte-train.json")).read_text(encoding="utf-8")
    assert json.loads(text) == expected(ROWS)
    lines = text.split("\n")
    assert lines[0] == "[" and lines[4:] == ["]", ""]
    assert [json.loads(line.rstrip(",")) for line in lines[1:4]] == expected(ROWS)
    assert list(json.loads(lines[1].rstrip(","))) == ["instruction", "input", "output", "idx"]
    assert "三个苹果" in text


def test_unquoted_tsv_keeps_stray_quotes(bench):
    header = "index\tsentence1\tsentence2\tlabel\r\n"
    text = header + '0\t"Half a quote.\tIt\'s "half".\tnot_entailment\r\n1\ta\tb\tentailment\r\n'
    report = bench.compile("rte", f"train={bench.write('train.tsv', text)}")
    assert report.datasets == {"alpaca_rte_train": 2}
    first = bench.first("alpaca_rte-train.json")
    assert first["instruction"] == TEMPLATE.format('"Half a quote.', 'It\'s "half".')
    assert (first["output"], first["idx"]) == ("no", 0)


texts = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\0"), min_size=1, max_size=40
).filter(lambda text: text.replace("\ufeff", "").strip())  # what JSON Schema's \\S takes for blank


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(texts, texts, st.sampled_from([0, 1])), min_size=1, max_size=6))
def test_any_text_comes_through_every_layout_unchanged(bench, triples):
    rows = [{"sentence1": a, "sentence2": b, "label": c, "idx": n} for n, (a, b, c) in enumerate(triples)]
    files = layouts(rows)
    for name in ("escaped.jsonl", "pretty.json", "object.json", "table-lf.csv", "table.parquet"):
        bench.compile("rte", f"train={bench.write(name, files[name])}", force=True)
        assert bench.records("alpaca_rte-train.json") == expected(rows), name
