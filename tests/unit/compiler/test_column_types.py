"""A column type is one object in one file of compiler/columns."""

import contextlib
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
import yaml

from tests.messages import printed, raises
from tests.plug_ins import documented
from tuneyard.compiler.init.propose import propose
from tuneyard.compiler.spec.column_types import ColumnType, column_types
from tuneyard.compiler.spec.file import SCHEMAS, read_schema
from tuneyard.compiler.verify.comparison import RecordComparison
from tuneyard.compiler.verify.expect import Expected
from tuneyard.compiler.verify.verdict import Verdict
from tuneyard.core.datasets import read_registry
from tuneyard.core.errors import ContentError
from tuneyard.core.records import format_of_entry

SOUNDS = """
from tuneyard.compiler.spec.column_types import ASKED, Beside, ColumnReader, ColumnType

class SoundsReader(ColumnReader):
    def read(self, value):
        return value.split(";")

class SoundsType(ColumnType):
    def loaded_pairs(self, example, loaded):
        return [(list(example.media["audios"]), loaded["_audios"])]

SOUNDS = SoundsType("sounds", {"type": "string", "description": "paths"}, part="audios", compared=ASKED,
                    beside=Beside(("sounds",), questions=True),
                    loaded_column="_audios", reader=SoundsReader)
"""
SPEC = """
about: a type of a new file
columns: {q: [q], a: {names: [a], is: %s}}
write: [{dataset: "s_{split}", file: "s-{split}.jsonl", format: alpaca, instruction: "{q}", output: "{a}"}]
"""


@contextlib.contextmanager
def added(monkeypatch: pytest.MonkeyPatch, column_type: ColumnType) -> Iterator[None]:
    """The column types with one more."""
    everything = column_types() | {column_type.name: column_type}
    places = "spec.column_types spec.file spec.model init.proposal init.guess verify.comparison"
    for place in places.split():
        monkeypatch.setattr(f"tuneyard.compiler.{place}.column_types", lambda: everything)
    read_schema.cache_clear()
    yield
    read_schema.cache_clear()


@pytest.fixture
def with_sounds(monkeypatch):
    """The column types with one more, which comes as the text of one file."""
    code: dict[str, Any] = {}
    exec(SOUNDS, code)
    with added(monkeypatch, code["SOUNDS"]):
        yield


class LoadedRows(dict):
    """Rows as LLaMA-Factory's loader gives them: columns, of which slices are taken."""

    def __len__(self):
        return len(self["_prompt"])

    def __getitem__(self, key):
        if isinstance(key, str):
            return dict.__getitem__(self, key)
        return {name: values[key] for name, values in self.items()}

    def select_columns(self, names):
        return LoadedRows((name, self[name]) for name in names)


HEARD = [
    {"question": "Who?", "sounds": "a.wav;b.wav", "answer": "An owl."},
    {"question": "Who?", "sounds": "c.wav", "answer": "A fox."},
]


def test_a_new_column_type_is_recognised_compiled_registered_and_read_back(bench, with_sounds):
    """`init` proposes it; the record, the entry and the lint take what the type declares."""
    text, _, _ = propose(bench.rows("rows.jsonl", HEARD))
    assert bench.compile(text).problems.counts == {}
    assert bench.values("rows.jsonl", "sounds") == [["a.wav", "b.wav"], ["c.wav"]]
    (entry,) = read_registry(bench.out).values()
    assert entry["columns"]["audios"] == "sounds"
    same = [row | {"sounds": "a.wav"} for row in HEARD]
    conflict = bench.compile_rows(text, same).problems.counts
    assert list(conflict) == ["W203"]


@pytest.mark.parametrize(("second", "codes"), [(["c.wav"], []), (["d.wav"], ["E407"])])
def test_verify_compares_what_a_new_column_type_expects(bench, with_sounds, second, codes):
    bench.compile(propose(bench.rows("rows.jsonl", HEARD))[0])
    ((name, entry),) = read_registry(bench.out).items()
    loaded = LoadedRows(
        _prompt=[[{"role": "user", "content": row["question"]}] for row in HEARD],
        _response=[[{"role": "assistant", "content": row["answer"]}] for row in HEARD],
        _system=["", ""],
        _tools=["", ""],
        _audios=[["a.wav", "b.wav"], second],
        _images=[None, None],
        _videos=[None, None],
    )
    expected = Expected(bench.out / str(entry["file_name"]), format_of_entry(entry))
    verdict = Verdict(name, loaded=2)
    comparison = RecordComparison(loaded, expected.records(), verdict)
    comparison.add(0, 2)
    comparison.end()
    assert [code for code in verdict.counts if code != "E408"] == codes  # there are no such files
    assert verdict.same == 2 - len(codes)


def test_column_types_stand_in_no_other_file_of_the_compiler_schema():
    text = (SCHEMAS / "spec.json").read_text(encoding="utf-8")
    assert [name for name in ("kto", "at_least", "rejected", "calls") if name in text] == []
    columns = read_schema("spec")["properties"]["columns"]["additionalProperties"]["oneOf"][1]["properties"]
    assert set(columns["is"]["enum"]) == set(column_types())


@pytest.mark.parametrize(
    "option", ["at_least: 3", "calls: text", "best: {by: n, take: t}", "arguments: error"]
)
def test_an_option_of_another_type_is_refused(bench, option):
    spec = SPEC % f"text, {option}"
    with raises(ContentError, "is: text"):
        bench.compile(spec, f"train={bench.write('rows.jsonl', '')}")


@pytest.fixture
def keywords(monkeypatch) -> Iterator[None]:
    """The type of the example of the docs is known."""
    module = ModuleType("keywords_of_the_docs")
    monkeypatch.setitem(sys.modules, module.__name__, module)  # for what processes send each other
    exec(documented('"""Keywords'), module.__dict__)
    with added(monkeypatch, module.KEYWORDS):
        yield


METALS = (
    'about: a test\ncolumns: {q: [q], k: {names: [k], is: keywords, between: ","}}\n'
    'write: [{dataset: m, file: m.jsonl, format: alpaca, instruction: "{q}", output: "{k}"}]\n'
)


def test_the_example_of_the_docs_is_a_column_type(bench, keywords):
    """`data init` recognises its column, and the spec that it proposes writes the list."""
    rows = bench.rows("rows.jsonl", [{"question": "Which?", "answer": "Both.", "keywords": "copper; tin"}])
    proposal, _, _ = propose(rows)
    assert yaml.safe_load(proposal)["columns"]["keywords"] == {"names": ["keywords"], "is": "keywords"}
    bench.compile_rows(METALS, [{"q": "Hi?", "k": "copper, tin"}])
    assert bench.first("m.jsonl")["output"] == "- copper\n- tin"
    report = bench.compile_rows(METALS, [{"q": "Hi?", "k": "copper,,tin"}])
    (problem,) = report.problems.errors
    assert (problem.code, problem.field) == ("E107", "k") and problem.place.endswith("train.jsonl:1")


def test_what_the_example_of_the_docs_counts_is_noted(bench, keywords):
    rows = [{"q": f"What of {n}?", "k": "tin" if n % 3 else f"tin,{n}"} for n in range(300)]
    report = bench.compile_rows(METALS, rows)
    notes = [note for note in report.problems.notes if "keyword" in note]
    assert len(notes) == 2
    printed(" ".join(notes), "rows with one keyword: 200", "different lists of keywords: 101")
