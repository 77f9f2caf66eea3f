"""A column type is one object in one file of compiler/columns."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT
from tests.messages import printed, raises
from tests.plug_ins import documented, installing
from tests.unit.compiler.conftest import questions
from tests.unit.compiler.test_identity import listed
from tuneyard.compiler.init.command import propose
from tuneyard.compiler.spec.column_types import bundled_types, column_types
from tuneyard.compiler.spec.file import SCHEMA, read_schema
from tuneyard.compiler.verify.comparison import RecordComparison
from tuneyard.compiler.verify.expect import Expected
from tuneyard.compiler.verify.verdict import Verdict
from tuneyard.core.datasets import read_registry
from tuneyard.core.errors import ContentError
from tuneyard.core.plugins import PluginError
from tuneyard.core.records import format_of_entry

SOUNDS = """
from tuneyard.compiler.spec.column_types import PROMPT, Beside, ColumnReader, ColumnType

class SoundsReader(ColumnReader):
    def read(self, value):
        return value.split(";")

class SoundsType(ColumnType):
    def loaded_pairs(self, example, loaded):
        return [(list(example.media["audios"]), loaded["_audios"])]

sounds = SoundsType("sounds", {"type": "string", "description": "paths"}, registry_key="audios",
compared=PROMPT,
                    beside=Beside(("sounds",), questions=True),
                    loaded_column="_audios", reader=SoundsReader)
"""
SPEC = """
about: a type of a new file
columns: {q: [q], a: {names: [a], is: %s}}
write: [{dataset: "s_{split}", file: "s-{split}.jsonl", format: alpaca, instruction: "{q}", output: "{a}"}]
"""


CACHES = (column_types, read_schema)


@pytest.fixture
def with_sounds(tmp_path, monkeypatch):
    """An installed package has one more column type."""
    with installing(tmp_path / "lib", "tuneyard.columns", monkeypatch, *CACHES) as lay:
        lay("sounds", SOUNDS)
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
    text = SCHEMA.read_text(encoding="utf-8")
    assert [name for name in ("kto", "at_least", "rejected", "calls") if name in text] == []
    columns = read_schema()["properties"]["columns"]["additionalProperties"]["oneOf"][1]["properties"]
    assert set(columns["is"]["enum"]) == set(bundled_types())


TYPE_BY_NAME = re.compile(r"spec\.named\(|type\.name (==|in|!=) [\"'(A-Z]|type is [A-Z]")


def test_no_step_of_a_compile_asks_which_column_type_it_has():
    """The steps call methods of column types, so that one of another package may do what ours do."""
    steps = [folder for folder in (ROOT / "compiler").iterdir() if folder.name != "columns"]
    files = [file for folder in steps for file in folder.rglob("*.py")]
    assert len(files) > 80
    assert [file.name for file in files if TYPE_BY_NAME.search(file.read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize(
    "option", ["at_least: 3", "calls: text", "best: {by: n, take: t}", "arguments: error"]
)
def test_an_option_of_another_type_is_refused(bench, option):
    spec = SPEC % f"text, {option}"
    with raises(ContentError, "is: text"):
        bench.compile(spec, f"train={bench.write('rows.jsonl', '')}")


@pytest.fixture
def keywords(tmp_path, monkeypatch) -> Iterator[Path]:
    """The file of an installed column type, which docs/extending.md has."""
    with installing(tmp_path / "lib", "tuneyard.columns", monkeypatch, *CACHES) as lay:
        lay("keywords", documented('"""Keywords'))
        yield next((tmp_path / "lib").rglob("plug_keywords.py"))


METALS = (
    'about: a test\ncolumns: {q: [q], k: {names: [k], is: keywords, between: ","}}\n'
    'write: [{dataset: m, file: m.jsonl, format: alpaca, instruction: "{q}", output: "{k}"}]\n'
)


def test_the_column_type_of_a_package_is_proposed_and_compiled(bench, keywords):
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


def test_the_code_of_a_column_type_is_part_of_the_identity(bench, keywords):
    spec = bench.write("metals.yaml", METALS)
    source = bench.rows("train.jsonl", [{"q": "Hi?", "k": "copper, tin"}])
    bench.compile(spec, source)
    (plugin,) = bench.manifest("metals")["made_from"]["plugins"]
    assert (plugin["name"], plugin["package"]) == ("keywords", "plug_keywords 1.2")
    assert bench.compile(spec, source).up_to_date and "stale" not in listed(bench)
    keywords.write_text(keywords.read_text() + "# changed\n")
    assert "stale: a plug-in that reads or checks its files has changed" in listed(bench)
    assert not bench.compile(spec, source).up_to_date


def test_a_column_type_that_no_column_has_does_not_count(bench, keywords):
    keywords.write_text("raise SystemExit('broken')\n")
    source = bench.rows("train.jsonl", questions(3))
    assert bench.compile("qa", source).kept == 3
    assert bench.manifest("qa")["made_from"]["plugins"] == []
    assert bench.compile("qa", source).up_to_date and "stale" not in listed(bench)


@pytest.mark.parametrize(
    ("code", "broken", "error"),
    [
        ("value.split(", "value.cut(", "AttributeError"),
        ('return "\\n".join(', "return list(", "read"),
        ("return [f", "return 1 / 0, [f", "ZeroDivisionError"),
        ("        words = [", "        raise SystemExit(2)\n        words = [", "SystemExit"),
        ('of keywords: {len(values)}"', '{values.lost}"', "AttributeError"),
        ("reader=KeywordsReader", "reader=int", "TypeError"),
        ('"description": "keywords in one text", ', "", "description"),
        ('"minLength": 1},\n    options', '"minLength": -1},\n    options', "ValidationError"),
        ('{"between"', '{"names"', "names"),
        ('{"between"', '{"at_least"', "at_least"),
        ('    "keywords",\n', '    "text",\n', "taken"),
        ("keywords = KeywordsType(", "keywords = 5\nother = KeywordsType(", "ColumnType"),
        ('return f"different', 'return 5, f"different', "`judge`"),
    ],
)
def test_an_error_of_the_column_type_of_a_package_names_it(bench, keywords, code, broken, error):
    text = keywords.read_text()
    assert code in text
    keywords.write_text(text.replace(code, broken))
    rows = [{"q": "Hi?", "k": "copper, tin"}]
    with raises(PluginError, "keywords", "plug_keywords 1.2", "tuneyard.columns", *filter(None, [error])):
        bench.compile_rows(METALS, rows)


ODD = """
from tuneyard.compiler.spec.column_types import ColumnReader, ColumnType

class OddReader(ColumnReader):
    checks_rows = True
    def unfold(self, values): return UNFOLD
    def read(self, value): return READ
    def check_row(self, row): return CHECK
    def notes(self): return NOTES

odd = ColumnType("odd", {"description": "odd", "type": "string"}, is_text=True, reader=OddReader)
"""
STEPS = {"UNFOLD": "values", "READ": "value", "CHECK": "{}", "NOTES": "[]"}


@pytest.mark.parametrize(
    ("step", "result", "facts"),
    [
        ("UNFOLD", "values[:1]", "1 values of 2"),
        ("READ", "None", "column k; null"),
        ("READ", "float('nan')", "column k; NaN"),
        ("CHECK", "None", "null"),
        ("CHECK", "{'lost': 1}", "lost"),
        ("CHECK", "{'q': 5}", "5; column q"),
        ("NOTES", "None", "null"),
    ],
)
def test_values_of_a_package_that_no_record_can_contain_name_it(
    bench, tmp_path, monkeypatch, step, result, facts
):
    code = ODD
    for name, usual in (STEPS | {step: result}).items():
        code = code.replace(name, usual)
    rows = [{"q": "Hi?", "k": "tin"}, {"q": "Ho?", "k": "zinc"}]
    with installing(tmp_path / "lib", "tuneyard.columns", monkeypatch, *CACHES) as lay:
        lay("odd", code)
        with raises(PluginError, "odd", "plug_odd 1.2", facts):
            bench.compile_rows(METALS.replace('is: keywords, between: ","', "is: odd"), rows)


@pytest.mark.parametrize(
    "method", ["as_texts", "from_cells", "fix_of", "may_be_messages", "written", "is_pair"]
)
def test_an_error_of_a_method_of_a_package_names_it(bench, tmp_path, monkeypatch, method):
    code = ODD.replace(
        "odd = ColumnType(",
        f"""
class OddType(ColumnType):
    def {method}(self, *values, **others): return int("five")

odd = OddType(""",
    ).replace("is_text=True", "registry_key='images'")
    for name, usual in STEPS.items():
        code = code.replace(name, usual)
    spec = METALS.replace('is: keywords, between: ","', "is: odd")
    source = bench.write("train.csv", "q,k\nHi?,tin\n")
    if method == "fix_of":
        source = bench.rows("train.jsonl", [{"q": "Hi?", "k": 5}])
    with installing(tmp_path / "lib", "tuneyard.columns", monkeypatch, *CACHES) as lay:
        lay("odd", code)
        with raises(PluginError, "odd", "plug_odd 1.2", "ValueError", "five"):
            bench.compile(spec, source)
