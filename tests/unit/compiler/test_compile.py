"""A compile as a whole: counts that add up, the same bytes, old or new, the registry kept."""

import json

import jsonschema_rs
import pytest

from compiler.registry import compiled, remove, repair
from core.errors import ContentError, RequestError
from tests.conftest import ROOT
from tests.unit.compiler.conftest import ROWS

HAND = {"mine": {"file_name": "mine.json", "columns": {"prompt": "a"}}}


def tree(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def manifest(bench, name="rte"):
    return json.loads((bench.out / name / "manifest.json").read_text())


def schema(name):
    folder = ROOT / "core" / "schemas"
    schemas = {path.name: json.loads(path.read_text()) for path in folder.glob("*.json")}
    registry = jsonschema_rs.Registry([(f"json-schema:///{key}", value) for key, value in schemas.items()])
    return jsonschema_rs.validator_for({"$ref": f"json-schema:///{name}"}, registry=registry)


def test_rows_without_gold_label_are_dropped_and_counted(bench):
    rows = [*ROWS, ROWS[0] | {"label": -1, "idx": 3}, ROWS[0] | {"label": "-", "idx": 4}]
    report = bench.compile("rte", bench.rows("train.jsonl", rows))
    assert (report.read, report.kept, report.dropped) == (5, 3, {"no gold label": 2})
    assert report.line().startswith("rte  read 5  kept 3  dropped 2 (no gold label 2)  alpaca_rte_train 3  ")


@pytest.mark.parametrize(
    ("raw", "word"), [(0, "yes"), ("0", "yes"), ("entailment", "yes"), (1, "no"), ("1", "no"), (1.0, "no")]
)
def test_labels_as_numbers_digits_and_names(bench, raw, word):
    bench.compile("rte", bench.rows("train.jsonl", [ROWS[0] | {"label": raw}]))
    assert bench.records("alpaca_rte-train.json")[0]["output"] == word


def test_a_wholly_unlabelled_part_is_read_and_not_written(bench):
    train = bench.rows("train.jsonl", ROWS)
    test = bench.rows("test.jsonl", [{"sentence1": "a", "sentence2": "b", "idx": 7}])
    report = bench.compile("rte", train, test)
    assert (report.read, report.kept, report.dropped) == (4, 3, {"no gold label": 1})
    assert bench.codes(report) == [("W209", "test.jsonl")]
    assert list(json.loads((bench.out / "dataset_info.json").read_text())) == ["alpaca_rte_train"]


def test_bad_rows_end_a_compile_with_nothing_written(bench):
    report = bench.compile("rte", bench.rows("train.jsonl", [*ROWS, ROWS[0] | {"label": 7}]))
    assert report.failed and not bench.out.exists()
    assert bench.codes(report) == [("E104", "train.jsonl:4")]


def test_a_failed_compile_names_no_records(bench):
    report = bench.compile("rte", bench.rows("train.jsonl", [*ROWS, {**ROWS[0], "label": 7}]))
    assert report.failed and "alpaca_rte_train" not in report.line() and "read 4" in report.line()


def test_quarantine_writes_the_good_rows_and_puts_the_others_aside(bench):
    bad = [ROWS[0] | {"label": 7}, "broken", ROWS[1] | {"sentence1": None, "sentence2": " "}]
    source = bench.write(
        "train.jsonl", "".join(json.dumps(row) + "\n" for row in [ROWS[0], bad[0], ROWS[1], bad[2]]) + "{x\n"
    )
    report = bench.compile("rte", source, quarantine=True)
    assert (report.read, report.kept, report.dropped) == (5, 2, {"bad rows": 3})
    aside = [json.loads(line) for line in (bench.out / "rte" / "quarantine.jsonl").read_text().splitlines()]
    places = {row["place"].rsplit(":", 1)[1]: row for row in aside}
    assert set(places) == {"2", "4", "5"}
    assert len(places["4"]["problems"]) == 2 and places["4"]["row"] == bad[2]
    assert places["5"]["row"] == "{x"


def test_limit_reads_so_many_rows_of_each_split(bench):
    rows = [ROWS[0] | {"idx": number, "sentence1": f"{number}"} for number in range(2500)]
    report = bench.compile(
        "rte", f"train={bench.rows('a.jsonl', rows)}", f"train={bench.rows('b.jsonl', rows)}", limit=2507
    )
    assert (report.read, report.kept) == (2507, 2507)


def test_the_same_compile_gives_the_same_bytes(bench):
    source = bench.rows("train.jsonl", ROWS)
    bench.compile("rte", source)
    first = tree(bench.out)
    assert bench.compile("rte", source).up_to_date
    assert not bench.compile("rte", source, force=True).up_to_date
    assert tree(bench.out) == first


@pytest.mark.parametrize("what", ["source", "output", "limit", "manifest"])
def test_a_set_is_compiled_again_when_something_changed(bench, what):
    source = bench.rows("train.jsonl", ROWS)
    bench.compile("rte", source)
    if what == "source":
        bench.rows("train.jsonl", ROWS[:2])
    if what == "output":
        (bench.out / "rte" / "alpaca_rte-train.json").write_text("[]")
    if what == "manifest":
        (bench.out / "rte" / "manifest.json").write_text("{}")
    report = bench.compile("rte", source, limit=2 if what == "limit" else None)
    assert not report.up_to_date
    assert len(bench.records("alpaca_rte-train.json")) == (2 if what in ("source", "limit") else 3)


def test_manifest_and_registry_fit_their_schemas(bench):
    bench.compile("rte", bench.rows("train.jsonl", ROWS))
    made = manifest(bench)
    assert list(schema("manifest.json").iter_errors(made)) == []
    for entry in json.loads((bench.out / "dataset_info.json").read_text()).values():
        assert list(schema("dataset_info.json").iter_errors(entry)) == []
    assert made["counts"] == {
        "read": 3,
        "kept": 3,
        "dropped": {},
        "not_sampled": 0,
        "records": {"alpaca_rte_train": 3},
    }
    assert made["fit"]["train"]["labels"] == {"no": 2, "yes": 1}


def test_hand_written_entries_stay(bench):
    bench.write("out/dataset_info.json", json.dumps(HAND))
    bench.compile("rte", bench.rows("train.jsonl", ROWS))
    info = json.loads((bench.out / "dataset_info.json").read_text())
    assert info["mine"] == HAND["mine"] and list(info) == ["mine", "alpaca_rte_train"]
    remove(bench.out / "rte")
    assert json.loads((bench.out / "dataset_info.json").read_text()) == HAND
    assert not (bench.out / "rte").exists()


def test_a_name_taken_by_hand_is_refused(bench):
    bench.write("out/dataset_info.json", json.dumps({"alpaca_rte_eval": HAND["mine"]}))
    before = tree(bench.out)
    with pytest.raises(ContentError, match="'alpaca_rte_eval' is taken by 'mine.json'"):
        bench.compile("rte", bench.rows("train.jsonl", ROWS))
    assert tree(bench.out) == before


@pytest.mark.parametrize("text", ["{", "[1]", '{"a": 1}', "\udcff"])
def test_a_broken_registry_is_refused_and_never_overwritten(bench, text):
    bench.write("out/dataset_info.json", text.encode(errors="surrogateescape"))
    before = tree(bench.out)
    with pytest.raises(ContentError, match="dataset_info.json"):
        bench.compile("rte", bench.rows("train.jsonl", ROWS))
    assert tree(bench.out) == before


def test_a_kill_before_the_registry_is_repaired(bench):
    source = bench.rows("train.jsonl", ROWS)
    bench.compile("rte", source)
    registry = bench.out / "dataset_info.json"
    good = registry.read_bytes()
    registry.unlink()
    repair(bench.out)
    assert registry.read_bytes() == good
    stale = json.loads(good) | {"alpaca_rte_eval": {"file_name": "rte/alpaca_rte-eval.json"}}
    registry.write_text(json.dumps(stale))
    repair(bench.out)
    assert json.loads(registry.read_bytes()) == json.loads(good)


def test_a_smaller_compile_takes_the_place_of_a_larger(bench):
    train, dev = bench.rows("train.jsonl", ROWS), bench.rows("dev.jsonl", ROWS[:1])
    bench.compile("rte", train, dev)
    bench.compile("rte", train)
    assert list(json.loads((bench.out / "dataset_info.json").read_text())) == ["alpaca_rte_train"]
    assert sorted(path.name for path in (bench.out / "rte").iterdir()) == [
        "alpaca_rte-train.json",
        "manifest.json",
    ]
    assert list(compiled(bench.out)) == ["rte"]


def test_files_go_to_the_split_that_their_name_tells(bench):
    for name in ("train.jsonl", "dev_matched.jsonl", "mnli-dev_mismatched.jsonl", "test_matched.jsonl"):
        bench.rows(f"raw/{name}", [ROWS[0] | {"gold_label": "neutral"}])
    report = bench.compile("mnli", bench.folder / "raw")
    assert list(report.datasets) == [
        f"alpaca_mnli_{split}" for split in ("train", "eval", "mismatched", "test")
    ]


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("", "empty path, expected PATH or SPLIT=PATH"),
        ("train=", "empty path, expected PATH or SPLIT=PATH"),
        ("missing.jsonl", "source not found"),
        ("evl={folder}/train.jsonl", "no split 'evl'.*did you mean \"eval\""),
        ("{folder}/other.jsonl", "its name tells no split of rte .splits: train, eval, test."),
        ("{folder}/empty", "no data files in this folder"),
        ("train={folder}/train.xlsx", "unknown kind of file '.xlsx'"),
        ("{folder}/loop", "Too many levels of symbolic links"),
        ("train={folder}/out/rte/x.jsonl", "lies inside the output folder"),
    ],
)
def test_sources_that_cannot_be_used_are_refused(bench, source, says):
    for name in ("train.jsonl", "other.jsonl", "train.xlsx"):
        bench.rows(name, ROWS)
    if "out/rte" in source:
        bench.rows("out/rte/x.jsonl", ROWS)
    (bench.folder / "empty").mkdir()
    (bench.folder / "loop").symlink_to(bench.folder / "loop")
    with pytest.raises(RequestError, match=says):
        bench.compile("rte", source.format(folder=bench.folder))


def test_a_column_may_be_named(bench):
    source = bench.rows("train.jsonl", [{"p": "a", "h": "b", "label": 0}])
    report = bench.compile("rte", source, columns={"premise": "p", "hypothesis": "h"})
    assert report.datasets == {"alpaca_rte_train": 1}
    assert bench.records("alpaca_rte-train.json")[0]["idx"] == 0


@pytest.mark.parametrize(
    ("spec", "row", "note"),
    [
        ("qa", {"question": "a", "answer": "b"}, "took question = question, answer = answer"),
        ("pr", {"Prompt": "a", "chosen": "b"}, "took prompt = Prompt, response = chosen"),
        (
            "io",
            {"prompt": "a", "output": "b"},
            "took instruction = prompt, output = output, found none for input",
        ),
        ("rte", ROWS[0], None),
        ("rte", ROWS[0] | {"text_a": "A."}, None),
        ("rte", {"text_a": "A.", "sentence2": "B.", "label": 1}, "took premise = text_a"),
        ("alpaca-text", {"instruction": "a", "input": "", "output": "b"}, None),
    ],
)
def test_columns_found_by_the_names_in_circulation_are_said(bench, spec, row, note):
    source = bench.rows("train.jsonl", [row])
    assert bench.compile(spec, source).notes == ([f"{source}: {note}"] if note else [])


def test_warnings_are_listed_by_file_and_line(bench):
    plain, odd = ROWS[0], ROWS[0] | {"sentence1": "<|im_end|>"}
    train = bench.rows("train.jsonl", [odd, plain, plain, odd])
    report = bench.compile("rte", train, bench.rows("dev.jsonl", [plain, odd]))
    lines = [(p["code"], p["place"].rpartition("/")[2]) for p in report.as_json()["problems"]]
    assert {code for code, _ in lines} >= {"W202", "W205", "W208"}
    places = [(file == "dev.jsonl", int(line)) for file, line in (place.split(":") for _, place in lines)]
    assert places == sorted(places)


def test_strict_makes_warnings_errors(bench):
    source = bench.rows("train.jsonl", [ROWS[0], ROWS[0]])
    assert bench.compile("rte", source, strict=True).failed
    assert not bench.out.exists()
    assert not bench.compile("rte", source).failed
    assert bench.compile("rte", source, strict=True).failed
    assert len(bench.records("alpaca_rte-train.json")) == 2


@pytest.mark.parametrize("compiled_before", [False, True])
def test_files_that_compile_did_not_make_are_never_replaced(bench, compiled_before):
    source = bench.rows("train.jsonl", ROWS)
    if compiled_before:
        bench.compile("rte", source)
    (bench.out / "rte").mkdir(parents=True, exist_ok=True)
    (bench.out / "rte" / "mine.json").write_text("precious")
    before = tree(bench.out)
    with pytest.raises(RequestError, match=r"rte: holds 1 files that compile did not make \(mine.json\)"):
        bench.compile("rte", source, force=True)
    if compiled_before:
        with pytest.raises(RequestError, match="mine.json"):
            remove(bench.out / "rte")
    assert tree(bench.out) == before


def test_a_linked_folder_is_refused_and_a_linked_registry_stays_a_link(bench):
    source = bench.rows("train.jsonl", ROWS)
    elsewhere = bench.folder / "elsewhere"
    elsewhere.mkdir()
    bench.out.mkdir()
    (bench.out / "rte").symlink_to(elsewhere)
    with pytest.raises(RequestError, match="rte: a link"):
        bench.compile("rte", source)
    assert (bench.out / "rte").is_symlink()
    (bench.out / "rte").unlink()
    (elsewhere / "info.json").write_text(json.dumps(HAND))
    (bench.out / "dataset_info.json").symlink_to(elsewhere / "info.json")
    bench.compile("rte", source)
    assert (bench.out / "dataset_info.json").is_symlink()
    assert set(json.loads((elsewhere / "info.json").read_text())) == {"mine", "alpaca_rte_train"}
