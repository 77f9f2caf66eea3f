"""Each row takes a column from the first name that it fills, and no row decides for the rows before it."""

import json
from pathlib import Path

import pytest

from tests.unit.compiler.conftest import Bench, as_csv, error_codes, json_lines
from tuneyard.compiler.engine.request import CompileReport
from tuneyard.compiler.inspect.trace import kept_rows
from tuneyard.compiler.spec.load import load_spec

COUNT = 2500
"""Rows of several batches: of a .json one has 1,000."""
PLACES = [0, 10, 1200, COUNT - 1]


def table(bench: Bench, rows: list[dict], layout: str, name: str = "rows") -> Path:
    """A file of rows. In a table each row has all columns, and a blank cell where a row has none."""
    if layout == "jsonl":
        return bench.rows(f"{name}.jsonl", rows)
    if layout == "json":
        return bench.write(f"{name}.json", json.dumps(rows))
    names = dict.fromkeys(key for row in rows for key in row)
    return bench.write(f"{name}.csv", as_csv([dict.fromkeys(names, "") | row for row in rows]))


def instructions(count: int = COUNT) -> list[dict]:
    return [{"instruction": f"Do {n}.", "output": f"Done {n}."} for n in range(count)]


@pytest.mark.parametrize("layout", ["jsonl", "json", "csv"])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("usual", "rare"), [("context", "input"), ("input", "context"), ("Context", "input")]
)
def test_each_row_takes_the_first_name_that_it_fills(
    bench: Bench, usual: str, rare: str, place: int, layout
) -> None:
    rows = [row | {usual: f"usual {n}"} for n, row in enumerate(instructions())]
    rows[place] = instructions()[place] | {rare: "rare"}
    report = bench.compile("io", table(bench, rows, layout))
    expected = [f"usual {n}" for n in range(COUNT)]
    expected[place] = "rare"
    assert bench.values("io.json", "input") == expected
    assert bench.values("io.json", "output") == [f"Done {n}." for n in range(COUNT)]
    (note,) = [note for note in report.problems.notes if "as input" in note]
    assert f'column "{usual}" (2499 of 2500)' in note and f'column "{rare}" (1 of 2500)' in note
    assert not report.unused.rows


@pytest.mark.parametrize("blank", ["", "  ", None, [], "\n"])
def test_a_blank_value_does_not_hide_another_name(bench: Bench, blank: object) -> None:
    rows = [row | {"input": blank, "context": f"c{n}"} for n, row in enumerate(instructions(5))]
    rows[3]["input"] = "i3"
    bench.compile("io", bench.rows("rows.jsonl", rows))
    assert bench.values("io.json", "input") == ["c0", "c1", "c2", "i3", "c4"]


def test_a_value_that_another_name_hides_is_counted_as_not_used(bench: Bench) -> None:
    rows = [row | {"input": "" if n else "i", "context": "c"} for n, row in enumerate(instructions(5))]
    report = bench.compile("io", bench.rows("rows.jsonl", rows))
    assert bench.values("io.json", "input") == ["i", "c", "c", "c", "c"]
    assert report.unused.rows == {"context": 1}


def test_a_row_that_fills_no_name_is_refused_with_the_name_that_it_has(bench: Bench) -> None:
    rows = [
        {"question": "a", "answer": "b"},
        {"query": "c", "response": "d"},
        {"q": "", "answer": "d"},
        {"query": "c"},
        {"question": " ", "query": "x", "answer": "", "a": "y"},
    ]
    report = bench.compile("qa", bench.rows("rows.jsonl", rows), reject=True)
    assert [(problem.code, problem.field) for problem in report.problems.errors] == [
        ("E106", "q (question)"),
        ("E102", "answer"),
    ]
    assert [(row["instruction"], row["output"]) for row in bench.records("qa.json")] == [
        ("a", "b"),
        ("c", "d"),
        ("x", "y"),
    ]


def test_labels_and_turns_with_several_names(bench: Bench) -> None:
    rows = [
        {"sentence1": "p", "sentence2": "h", "label": 0},
        {"premise": "q", "text_b": "i", "gold_label": 1},
        {"text_a": "r", "hypothesis": "j", "label": None, "gold_label": "-"},
    ]
    report = bench.compile("rte", bench.rows("train.jsonl", rows))
    assert bench.values("alpaca_rte-train.json", "output") == ["yes", "no"]
    assert bench.values("alpaca_rte-train.json", "idx") == [0, 1] and report.dropped == {"no gold label": 1}
    turns = [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Yes."}]
    talks = [{"messages": turns}, {"conversations": turns}, {"messages": [], "contents": turns}]
    assert bench.compile("messages", bench.rows("talks.jsonl", talks)).kept == 3


@pytest.mark.parametrize("place", PLACES)
def test_a_completion_belongs_to_its_row_alone(bench: Bench, place: int) -> None:
    """In a row without a completion the turns must have their answer."""
    asked = {"prompt": "Hi?", "completion": "Yes.", "label": True}
    turns = [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "No."}]
    rows = [asked] * COUNT
    rows[place] = {"prompt": turns, "label": False}
    bench.compile("kto", bench.rows("rows.jsonl", rows))
    answers = [
        record["messages" if "messages" in record else "conversations"]
        for record in bench.records("kto.json")
    ]
    expected = ["Yes."] * COUNT
    expected[place] = "No."
    assert [turns[-1]["value"] for turns in answers] == expected


IDS = """
about: ids
columns: {q: [q], a: [a], idx: [idx]}
write: [{file: t.jsonl, format: alpaca, instruction: "{q}", output: "{a}", keep: [idx]}]
"""


def with_ids(ids: list) -> list[dict]:
    return [{"q": f"q{n}", "a": "y", "idx": each} for n, each in enumerate(ids)]


@pytest.mark.parametrize("layout", ["jsonl", "json", "csv"])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("text", ["A7", "007", "7.5"])
def test_a_text_id_is_fine_wherever_it_stands(bench: Bench, place: int, layout: str, text: str) -> None:
    ids: list[object] = list(range(COUNT))
    ids[place] = text
    report = bench.compile(IDS, table(bench, with_ids(ids), layout))
    assert not report.problems.errors and report.kept == COUNT
    assert bench.values("t.jsonl", "idx") == list(map(str, ids))
    assert bench.values("t.jsonl", "instruction") == [f"q{n}" for n in range(COUNT)]


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 1, 0), (1, 2, 0)])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_text_id_is_fine_in_any_file_of_a_split(bench: Bench, order: tuple[int, ...], workers: int) -> None:
    ids = [["A1", "2"], ["3", "4"], [*map(str, range(1500)), "B"]]
    sources = [table(bench, with_ids(ids[n]), "csv", f"f{n}") for n in order]
    report = bench.compile(IDS, *sources, workers=workers, reject=True)
    assert report.kept == 1505 and not report.rejected
    assert bench.values("t.jsonl", "idx") == [each for n in order for each in ids[n]]


def test_ids_of_another_split_stay_numbers(bench: Bench) -> None:
    rows = [{"sentence1": f"p{n}", "sentence2": "h", "label": 0, "idx": n} for n in range(3)]
    texts = [row | {"sentence1": f"x{row['idx']}", "idx": f"d{row['idx']}"} for row in rows]
    bench.compile(
        "rte", bench.rows("train.jsonl", rows), bench.rows("dev.jsonl", [rows[0] | {"idx": 9}, *texts])
    )
    assert bench.values("alpaca_rte-train.json", "idx") == [0, 1, 2]
    assert bench.values("alpaca_rte-eval.json", "idx") == ["9", "d0", "d1", "d2"]


def test_a_rejected_row_does_not_make_ids_texts(bench: Bench) -> None:
    rows = with_ids([1, 2, "x"])
    rows[2]["q"] = ""
    bench.compile(IDS, bench.rows("t.jsonl", rows), reject=True)
    assert bench.values("t.jsonl", "idx") == [1, 2]


def odd_first(first: dict, count: int) -> list[dict]:
    """So many odd rows, and as many good ones after them."""
    good = [{"sentence1": f"p{n}", "sentence2": "h", "label": n % 2, "idx": 1000 + n} for n in range(count)]
    return [first | {"n": n} for n in range(count)] + good


@pytest.mark.parametrize("count", [1, 1500])
@pytest.mark.parametrize("layout", ["jsonl", "json"])
@pytest.mark.parametrize(
    ("first", "fields"),
    [
        ({"sentence2": "h", "label": 1, "idx": 1}, {"sentence1 (premise)"}),
        ({"sentence1": "p", "sentence2": "h", "idx": 1}, {"label"}),
        ({"sentence1": "p", "sentence2": "h", "label": 1}, {"idx"}),
        ({"other": 1}, {"sentence1 (premise)", "sentence2 (hypothesis)", "label", "idx"}),
    ],
)
def test_rows_that_lack_a_column_are_rejected_alone(
    bench: Bench, first, fields, count: int, layout: str
) -> None:
    report = bench.compile("rte", table(bench, odd_first(first, count), layout, "train"), reject=True)
    assert (report.read, report.kept, report.rejected) == (2 * count, count, count)
    assert {problem.field for problem in report.problems.errors} == fields
    assert set(error_codes(report)) == {"E102"} and not report.problems.fatal
    assert bench.values("alpaca_rte-train.json", "idx") == [1000 + n for n in range(count)]
    rejected = (bench.out / "rte/rejected.jsonl").read_text().splitlines()
    assert len(rejected) == count
    assert bench.manifest("rte")["counts"]["read"] == 2 * count


def test_odd_rows_after_the_good_ones_and_in_a_second_file(bench: Bench) -> None:
    rows = odd_first({"other": 1}, 1200)
    first = bench.rows("train.jsonl", rows[::-1])
    second = bench.rows("train-2.jsonl", rows)
    report = bench.compile("rte", f"train={first}", f"train={second}", reject=True)
    assert (report.read, report.kept, report.rejected) == (4800, 2400, 2400)
    assert bench.values("alpaca_rte-train.json", "idx")[:1200] == [1000 + n for n in range(1200)][::-1]


def test_a_column_that_no_row_has_is_one_error(bench: Bench) -> None:
    rows = [{"sentence1": "p", "label": 1} for _ in range(3000)]
    report = bench.compile("rte", bench.rows("train.jsonl", rows), reject=True)
    assert error_codes(report) == ["E101"] and report.failed


def test_rows_on_their_way_are_shown_as_they_are_compiled(bench: Bench) -> None:
    spec = bench.write("t.yaml", IDS)
    rows = with_ids([*range(1500), "A"])
    rows.insert(0, {"q": "odd", "idx": 1})
    source = bench.write("t.jsonl", json_lines(rows[1:]))
    ids = [row.batch.columns["idx"][0] for row in kept_rows(load_spec(str(spec)), [str(source)])]
    assert len(ids) == 1501 and ids[-1] == "A"


def compiled_with(bench: Bench, rows: list[dict], workers: int) -> tuple[CompileReport, str]:
    sources = [bench.rows(f"train-{n}.jsonl", rows) for n in range(2)]
    report = bench.compile("rte", *sources, workers=workers, reject=True, force=True)
    return report, (bench.out / "rte/alpaca_rte-train.json").read_text()


def test_workers_write_the_same_bytes(bench: Bench) -> None:
    rows = odd_first({"premise": "P", "sentence2": "h", "gold_label": 0, "index": "t7"}, 1300)
    one, two = (compiled_with(bench, rows, workers) for workers in (1, 2))
    assert one[1] == two[1] and one[0].kept == two[0].kept == 5200
    assert one[0].problems.notes == two[0].problems.notes


def test_rows_rejected_before_a_file_is_read_again_are_listed_once(bench: Bench) -> None:
    rows = with_ids([*range(COUNT), "A"])
    rows[3]["q"] = ""
    first = bench.rows("a.jsonl", [*with_ids([1]), {"q": "x", "a": "", "idx": 2}])
    later = table(bench, rows, "json", "b")  # of which a batch is 1,000 rows
    report = bench.compile(IDS, first, later, reject=True)
    assert (report.read, report.kept, report.rejected) == (COUNT + 3, COUNT + 1, 2)
    assert len((bench.out / "spec/rejected.jsonl").read_text().splitlines()) == 2
    alone = bench.compile(IDS, later, reject=True, force=True)
    assert (alone.kept, alone.rejected) == (COUNT, 1)
    assert len((bench.out / "spec/rejected.jsonl").read_text().splitlines()) == 1
