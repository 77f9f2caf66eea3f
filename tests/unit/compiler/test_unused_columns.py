"""Source columns that nothing uses: counted in every layout, refused where an answer depends on them."""

import time

import pytest

from tests.messages import printed
from tests.unit.compiler.conftest import ROWS, Bench, error_codes, exchange, layouts
from tuneyard.compiler.engine.request import CompileRequest
from tuneyard.compiler.publish.compile import check_dataset
from tuneyard.compiler.publish.listing import dataset_lines
from tuneyard.compiler.publish.registry import Registry
from tuneyard.compiler.publish.report import report_as_json
from tuneyard.compiler.spec.load import load_spec
from tuneyard.core.datasets import filled

TALK = exchange("Why?", "So.")
QA = {"question": "Why?", "answer": "So."}
IO = {"instruction": "Why?", "output": "So."}


def refused(bench: Bench, spec: object, rows: list[dict]) -> dict[str, str]:
    """Return what E108 says of each column."""
    source = bench.rows("train.jsonl", rows)
    report = bench.compile(spec, f"p={source}" if load_spec(str(spec)).mix else source, force=True)
    errors = report.problems.errors
    assert report.failed == bool(errors) != (bench.out / report.name).exists()
    assert {problem.code for problem in errors} <= {"E108"}
    return {problem.field: problem.message for problem in errors}


@pytest.mark.parametrize("name", layouts(ROWS))
def test_columns_that_nothing_uses_are_counted_in_every_layout(bench, name):
    more = [{"url": "a", "empty": "", "one": ""}, {"url": "b", "empty": "", "one": "x"}, {"url": "c"}]
    rows = [row | {"empty": "", "one": ""} | other for row, other in zip(ROWS, more, strict=True)]
    report = bench.compile("rte", f"train={bench.write(name, layouts(rows)[name])}")
    assert report.unused.rows == {"url": 3, "one": 1}
    (line,) = report.unused.lines(report.read)
    assert sorted(line.removeprefix("not used: ").split(", ")) == ["one (1 of 3)", "url (3 of 3)"]
    assert bench.manifest("rte")["not_used"] == {"url": 3, "one": 1}


def test_empty_values_hold_nothing_and_nought_and_false_do():
    values = ["", None, [], {}, "[]", "{}", "null", 0, False, 0.0, " ", [None], {"a": None}, "x"]
    assert filled(values) == [7, 8, 9, 10, 11, 12, 13]


def test_parquet_columns_hold_something_where_their_values_do(bench):
    import pyarrow as pa
    import pyarrow.parquet

    columns = {
        "question": ["a", "b", "c"],
        "answer": ["x", "y", "z"],
        "texts": pa.array([[], None, ["t"]], pa.list_(pa.string())),
        "large": pa.array([[], [1], [None]], pa.large_list(pa.int64())),
        "pairs": pa.array([[], None, [("k", 1)]], pa.map_(pa.string(), pa.int64())),
        "object": [None, {"bytes": None}, {"bytes": b"x"}],
        "number": [0, None, 1],
        "bytes": [b"", b"x", None],
        "nothing": [None, None, None],
    }
    pyarrow.parquet.write_table(pa.table(columns), bench.folder / "t.parquet")
    report = bench.compile("qa", bench.folder / "t.parquet")
    expected = {"texts": 1, "large": 2, "pairs": 1, "object": 2, "number": 2, "bytes": 2}
    assert report.unused.rows == {name: expected[name] for name in columns if name in expected}


@pytest.mark.parametrize(
    ("spec", "row", "says"),
    [
        ("messages", {"messages": TALK, "label": False}, "KTO marks a rejected one so"),
        ("messages", {"messages": TALK, "thumbs_up": False}, "feedback"),
        ("messages", {"messages": TALK, "images": ["a.jpg"]}, "1 of 2 rows have images"),
        ("messages", {"messages": TALK, "function_calls": [{"name": "f"}]}, "tools or calls"),
        ("messages", {"messages": TALK, "rejected": TALK[1]}, "preference data"),
        ("messages-text", {"messages": TALK, "system": "Be brief."}, "a system text"),
        ("reports", IO | {"system": "Be brief."}, "a system text"),
        ("io", IO | {"history": [["a", "b"]]}, "earlier turns"),
        ("io", IO | {"reasoning_content": "Because."}, "reasoning before the answer"),
        ("io", IO | {"tool_calls": [{"function": {"name": "f"}}]}, "tools or calls"),
        ("qa", QA | {"is_correct": False}, "1 of 2 rows have a mark such as false (an answer is incorrect"),
        ("qa", QA | {"is_correct": "否"}, "an answer is incorrect"),
        ("qa", QA | {"is_wrong": True}, "an answer is incorrect"),
        ("qa", QA | {"response_bad": "c"}, "preference data"),
        ("pr", {"prompt": "a", "completion": "b", "label": False}, "a label beside the answer"),
        ("qa", QA | {"choices": ["a", "b"]}, "choices of a question"),
        ("alpaca-text", IO | {"input": "", "label": 0}, "a label beside the answer"),
    ],
)
def test_a_column_that_changes_what_an_answer_means_is_refused(bench, spec, row, says):
    plain = {
        key: value
        for key, value in row.items()
        if key in ("messages", "text", "prompt", "input", *QA, *IO, *ROWS[0])
    }
    answer = {key: value for key, value in row.items() if key in ("response", "completion")}
    found = refused(bench, spec, [plain | answer, row])
    assert found and all(says in message for message in found.values()), found


@pytest.mark.parametrize(
    ("spec", "row"),
    [
        ("messages", {"messages": TALK, "system": "S", "tools": "[]", "label": None, "images": []}),
        ("io", IO | {"system": "", "history": [], "tools": "[]"}),
        ("qa", {"question": "a", "chosen_by": "b", "answer": "c", "rejected": "d"}),
        ("pr", {"prompt": "a", "chosen": "b", "rejected": "c"}),
        ("text", {"text": "A text.", "Label": 1, "A": "a", "Choices": ["a"]}),
        ("mnli", {"premise": "P", "hypothesis": "H", "gold_label": "neutral", "label": 1}),
        ("rte", ROWS[0] | {"gold_label": 1}),
    ],
)
def test_what_is_empty_mapped_ignored_or_beside_no_answer_is_no_error(bench, spec, row):
    assert refused(bench, spec, [row]) == {}


@pytest.mark.parametrize(
    ("name", "values", "rows", "line"),
    [
        ("weight", [[1, 0], [1, 1]], 1, 1),
        ("weight", ["1", "0.2", "0.9"], 2, 2),
        ("weight", [5, 0, False, "0.0"], 3, 2),
        ("is_correct", [True, False, True, False], 2, 2),
    ],
)
def test_a_mark_is_an_error_in_the_rows_that_it_changes(bench, name, values, rows, line):
    (problem,) = bench.compile(
        "qa", bench.rows("t.jsonl", [QA | {name: value} for value in values])
    ).problems.errors
    assert (problem.code, problem.field) == ("E108", name) and problem.place.endswith(f"t.jsonl:{line}")
    assert problem.message.startswith(f"{rows} of {len(values)} rows have a mark such as ")
    files = [bench.rows(f"{n}.jsonl", [QA | {name: value}]) for n, value in enumerate(values)]
    (other,) = bench.compile("qa", *files, force=True).problems.errors
    assert other.message == problem.message


def test_marks_in_a_table_are_text(bench):
    bench.write("t.csv", "question,answer,correct,weight\na?,b,TRUE,1\nc?,d,False,1.0\ne?,f,0,\n")
    (problem,) = bench.compile("qa", bench.folder / "t.csv").problems.errors
    assert problem.code == "E108" and problem.message.startswith("2 of 3 rows") and problem.field == "correct"


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("correct", ["Paris", 3, "partly", 2.5, True, 1]),
        ("wrong", [False, 0, "Paris", 7]),
        ("tools", [True, 0]),
        ("kto_tag", [True, "good"]),
        ("label", [1, "sports"]),
        ("rationale", ["r"]),
        ("solution", ["s"]),
        ("score", [0]),
        ("is_rejected", [False]),
        ("loss", [0.342]),
        ("weight", [1, 1.0, "1", True, 3, 4.5, "70 kg", 1e300, [1, None, 1.0]]),
        ("thumbs", ["up", True]),
    ],
)
def test_a_value_that_changes_no_answer_is_only_counted(bench, name, values):
    rows = [QA | {name: value} for value in [*values, None, ""]]
    report = bench.compile_rows("qa", rows)
    assert not report.failed and report.unused.rows == {name: len(values)}


@pytest.mark.parametrize("name", ["qa", "pr"])
def test_an_ignored_column_that_holds_something_is_reported(bench, name):
    asked = "question" if name == "qa" else "prompt"
    rows = [{asked: f"{n}?", "response": "b", "rejected": "c" if n else ""} for n in range(3)]
    source = bench.rows("t.jsonl", rows)
    report = bench.compile(name, source)
    assert not report.failed and report.unused.lines(3) == ["ignored: rejected (2 of 3)"]
    manifest = bench.manifest(name)
    assert manifest["ignored"] == report_as_json(report)["ignored"] == {"rejected": 2}


def test_a_spec_of_ones_own_ignores_or_maps(bench):
    rows = [{"messages": TALK, "Label": False, "images": ["a.jpg"]}]
    spec = bench.write("mine.yaml", "about: a\nlike: messages\nignore: [label]\nwrite: [{}]\n")
    assert list(refused(bench, spec, rows)) == ["images"]
    spec.write_text(spec.read_text().replace("[label]", "[label, images]"))
    assert refused(bench, spec, rows) == {}
    assert "not used" not in "".join(dataset_lines(Registry(bench.out).finish_publications()))
    mapped = "about: a\nlike: reports\ncolumns: {system: {names: [system], is: extra}}\nwrite: [{SYSTEM}]\n"
    rows = [IO | {"system": "Be brief."}]
    unwritten = bench.write("unwritten.yaml", mapped.replace("SYSTEM", ""))
    assert list(refused(bench, unwritten, rows)) == ["system"]
    assert refused(bench, bench.write("m.yaml", mapped.replace("SYSTEM", 'system: "{system}"')), rows) == {}
    assert bench.first("reports.json")["system"] == "Be brief."


def test_a_mixture_ignores_for_its_parts(bench):
    mix = (
        "about: a\nmix: {total: 1, parts: {p: {share: 1, as: messages}}}\n"
        "write: [{dataset: m, file: m.jsonl, format: alpaca}]\n"
    )
    rows = [{"messages": TALK, "tools": '[{"name": "f"}]', "system": "Be brief."}]
    assert list(refused(bench, bench.write("m.yaml", mix), rows)) == ["system", "tools"]
    assert refused(bench, bench.write("m.yaml", mix + "ignore: [tools, system]\n"), rows) == {}


def test_errors_of_columns_stand_before_those_of_rows(bench):
    rows = [{"conversations": [{"from": "human", "value": "a"}], "chosen": {}, "rejected": {"value": "b"}}]
    report = bench.compile_rows("messages", rows * 3)
    assert error_codes(report) == ["E108", "E107", "E107", "E107"]
    assert report.problems.errors[0].place.endswith("train.jsonl:1")


def test_missing_columns_name_a_near_one_or_the_command_that_proposes_a_spec(bench):
    report = bench.compile_rows("pairs-chat", [{"messages": [], "chosen": "x", "reject": "y"}])
    printed(report.problems.errors[0].hint, '"reject"', "--column rejected=NAME")
    report = bench.compile_rows("pr", [{"conversations": [], "images": "x"}])
    assert "`tuneyard data init FILE`" in report.problems.errors[0].hint


def test_columns_without_end_are_counted_in_bounded_memory(bench):
    rows = [QA | {f"key{number}_{key}": 1 for key in range(50)} for number in range(100)]
    report = bench.compile_rows("qa", [*rows, QA | {"images": ["a"]}])
    assert len(report.unused.rows) == 2000 and report.unused.rows["images"] == 1
    assert report.unused.lines(101)[0].count(" of 101)") == 20


@pytest.mark.parametrize("outer", [None, "meta"])
@pytest.mark.parametrize("value", [1, "text", {"deep": 1}])
def test_a_key_of_its_own_in_each_row_takes_one_look_at_each_row(bench, outer, value):
    """20,000 rows took 78 s when each name was looked up in each row."""
    rows = []
    for number in range(5000):
        row = {"question": f"Why {number}?", f"key{number}": value}
        rows.append({"answer": "So."} | (row if outer is None else {outer: row}))
    source = bench.rows("own.jsonl", rows)
    text = "like: qa\n"
    if outer:
        text += "columns: {question: [meta.question]}\n"
    spec = load_spec(str(bench.write("own.yaml", text)))
    began = time.process_time()
    report = check_dataset(CompileRequest(spec, sources=(str(source),)))
    assert time.process_time() - began < 2
    names = [name for name in report.unused.rows if "key" in name]
    assert len(names) >= 1999 and {report.unused.rows[name] for name in names} == {1}


def test_rows_with_other_keys_name_the_first_row_of_each_mark(bench):
    rows = [QA, QA | {"weight": 1}, QA | {"x": 1, "weight": 0}, QA | {"weight": 0, "y": ""}]
    report = bench.compile("qa", bench.rows("train.jsonl", rows))
    (problem,) = report.problems.errors
    assert problem.code == "E108" and problem.place.endswith("train.jsonl:3")
    assert problem.message.startswith("2 of 4 rows have") and report.unused.rows == {"weight": 3, "x": 1}


def test_a_header_of_many_columns_is_looked_at_once(bench):
    """60,000 names took minutes when each was counted among all."""
    names = [f"c{number}" for number in range(60_000)]
    source = bench.write("wide.csv", ",".join([*names, "c59999"]) + "\n" + ",".join("1" * 60_001) + "\n")
    began = time.process_time()
    report = bench.compile("qa", source)
    assert time.process_time() - began < 5
    assert [(problem.code, problem.field) for problem in report.problems.errors] == [("E009", "c59999")]


def test_what_stands_beside_a_path_is_named_and_refused_where_it_has_a_meaning(bench):
    columns = "{turns: {names: [conv.messages], is: turns}}"
    text = f"columns: {columns}\nwrite: [{{dataset: s, file: s.jsonl, format: sharegpt}}]\n"
    rows = [{"conv": {"messages": TALK, "images": ["x.png"], "id": 7, "empty": []}}]
    messages = refused(bench, bench.write("s.yaml", f"about: a\n{text}"), rows)
    assert list(messages) == ['"conv.images"']
    printed(messages['"conv.images"'], "1 of 1 rows", "images")
    for ignored in ("conv.images", "conv"):
        spec = bench.write("s.yaml", f"about: a\nignore: [{ignored}]\n{text}")
        assert refused(bench, spec, rows) == {}


def test_all_unused_keys_of_an_object_are_named_and_only_the_first_unused_item_of_a_list(bench):
    columns = '{question: [faq.question], answer: ["faq.answers.²", "faq.answers.0"]}'  # "²" is no number
    output = '{file: s.jsonl, format: alpaca, instruction: "{question}", output: "{answer}"}'
    spec = f"about: a\ncolumns: {columns}\nwrite: [{output}]\n"
    faq = {"id": 7, "question": "Why?", "answers": ["So.", "Thus.", "Hence."], "page": "p. 3"}
    report = bench.compile_rows(spec, [{"faq": faq}])
    assert report.unused.rows == {"faq.id": 1, "faq.answers.1": 1, "faq.page": 1}


def test_a_column_by_which_the_rows_are_split_is_used(bench):
    columns = "{question: [question], answer: [answer], page: [page]}"
    output = '{file: "{split}.jsonl", format: alpaca, instruction: "{question}", output: "{answer}"}'
    split = "{eval: 0.5, group: page}"
    text = f"about: a\ncolumns: {columns}\nsplit: {split}\nwrite: [{output}]\n"
    rows = [QA | {"question": f"Why {n}?", "page": f"{n % 3}", "url": "u"} for n in range(12)]
    report = bench.compile_rows(text, rows)
    assert report.unused.rows == {"url": 12}


@pytest.mark.parametrize("name", ["imagePath", "systemPrompt", "Images ", "Chosen-Response"])
def test_a_column_means_the_same_however_its_name_is_written(bench, name):
    assert len(refused(bench, "qa", [QA | {name: "x"}])) == 1


@pytest.mark.parametrize("name", ["KTO-Tag", "kto tag", "isPreferred", "Sample-Weight"])
def test_a_mark_means_the_same_however_its_name_is_written(bench, name):
    assert len(refused(bench, "qa", [QA | {name: False}])) == 1
    assert refused(bench, "qa", [QA | {name: True}]) == {}
