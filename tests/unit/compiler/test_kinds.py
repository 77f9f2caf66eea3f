"""A kind of column is one object in one file of compiler/kinds."""

import re

import pytest
import yaml

from tests.conftest import ROOT
from tests.messages import raises
from tuneyard.compiler.init.propose import propose
from tuneyard.compiler.kinds import RecordLayout, check_kinds, kinds
from tuneyard.compiler.spec.file import SCHEMAS, read_schema
from tuneyard.core.errors import ContentError

SHOUTED = """
from tuneyard.compiler.kinds import ColumnReader, Kind

class ShoutReader(ColumnReader):
    def settle(self, values):
        return [value.upper() + "!" * self.column.options.get("marks", 1) for value in values]

SHOUTED = Kind("shouted", {"type": "string", "description": "text"}, is_text=True, reader=ShoutReader,
               options={"marks": {"type": "integer"}})
"""
SPEC = """
about: a kind of a new file
columns: {q: [q], a: {names: [a], is: %s}}
write: [{dataset: "s_{split}", file: "s-{split}.jsonl", format: alpaca, instruction: "{q}", output: "{a}"}]
"""


def test_a_new_kind_is_one_new_file(bench, monkeypatch):
    """Its name, its option and its reading need no other change: schema, check and record take them."""
    code: dict[str, object] = {}
    exec(SHOUTED, code)
    everything = kinds() | {"shouted": code["SHOUTED"]}
    monkeypatch.setattr("tuneyard.compiler.kinds.kinds", lambda: everything)
    monkeypatch.setattr("tuneyard.compiler.spec.file.kinds", lambda: everything)
    read_schema.cache_clear()
    try:
        spec = bench.write("shout.yaml", SPEC % "shouted, marks: 2")
        bench.compile(spec, f"train={bench.rows('rows.jsonl', [{'q': 'Hi?', 'a': 'hello'}])}")
    finally:
        read_schema.cache_clear()
    assert bench.records("s-train.jsonl") == [{"instruction": "Hi?", "input": "", "output": "HELLO!!"}]


def test_kinds_stand_in_no_other_file_of_the_compiler_schema():
    text = (SCHEMAS / "spec.json").read_text(encoding="utf-8")
    assert [kind for kind in ("kto", "at_least", "rejected", "calls") if kind in text] == []
    columns = read_schema("spec")["properties"]["columns"]["additionalProperties"]["oneOf"][1]["properties"]
    assert set(columns["is"]["enum"]) == set(kinds())


@pytest.mark.parametrize(
    "option", ["at_least: 3", "calls: text", "best: {by: n, take: t}", "arguments: error"]
)
def test_an_option_of_another_kind_is_refused(bench, option):
    spec = bench.write("s.yaml", SPEC % f"text, {option}")
    with raises(ContentError, "is: text"):
        bench.compile(spec, f"train={bench.write('rows.jsonl', '')}")


@pytest.mark.parametrize("name", [kind.name for kind in kinds().values() if kind.part])
def test_no_plain_text_contains_what_goes_beside_texts(name):
    with pytest.raises(ValueError, match="column c: neither a mixture nor a text"):
        check_kinds(RecordLayout({"c": name}, texts=True, answered=False, formats={"text"}))


def test_the_example_of_the_docs_is_a_kind(bench, monkeypatch):
    """`data init` recognises its column, and the spec that it proposes writes the list."""
    text = (ROOT / "docs/extending.md").read_text(encoding="utf-8")
    (source,) = re.findall(r'```python\n("""Keywords.*?)```', text, re.DOTALL)
    code: dict[str, object] = {}
    exec(source, code)
    everything = kinds() | {"keywords": code["KEYWORDS"]}
    for place in ("kinds", "spec.file", "init.proposal", "init.guess"):
        monkeypatch.setattr(f"tuneyard.compiler.{place}.kinds", lambda: everything)
    read_schema.cache_clear()
    try:
        rows = bench.rows(
            "rows.jsonl", [{"question": "Which?", "answer": "Both.", "keywords": "copper; tin"}]
        )
        proposal, _ = propose(rows)
        assert yaml.safe_load(proposal)["columns"]["keywords"] == {"names": ["keywords"], "is": "keywords"}
        spec = bench.write(
            "metals.yaml",
            'about: a test\ncolumns: {q: [q], k: {names: [k], is: keywords, between: ","}}\n'
            'write: [{dataset: m, file: m.jsonl, format: alpaca, instruction: "{q}", output: "{k}"}]\n',
        )
        bench.compile(spec, bench.rows("good.jsonl", [{"q": "Hi?", "k": "copper, tin"}]))
        assert bench.records("m.jsonl")[0]["output"] == "- copper\n- tin"
        report = bench.compile(spec, bench.rows("bad.jsonl", [{"q": "Hi?", "k": "copper,,tin"}]))
        (problem,) = report.problems.errors
        assert (problem.code, problem.field) == ("E107", "k") and problem.place.endswith("bad.jsonl:1")
    finally:
        read_schema.cache_clear()
