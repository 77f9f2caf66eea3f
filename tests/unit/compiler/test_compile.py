"""A compile as a whole: counts that add up, the same bytes, old or new, the registry kept."""

import json
import os
import time
from dataclasses import fields
from pathlib import Path

import jsonschema_rs
import pytest

from tests.cli.scoring import invoke
from tests.conftest import ROOT
from tests.folders import names
from tests.json_files import read_json, read_lines, write_json
from tests.messages import printed, raises
from tests.runs_cut import tree
from tests.unit.compiler.conftest import ROWS, json_lines, layouts
from tuneyard.compiler.cli import cli
from tuneyard.compiler.engine import row_loop
from tuneyard.compiler.engine.request import COUNTED, CompileJob, CompileRequest
from tuneyard.compiler.publish.registry import Registry
from tuneyard.compiler.publish.report import counts_line, report_as_json, why_failed
from tuneyard.compiler.spec.load import load_spec
from tuneyard.core.datasets.compiled import Manifest
from tuneyard.core.errors import ContentError, RequestError
from tuneyard.core.installation.checkout import version


def schema(name):
    folder = ROOT / "core/schemas"
    schemas = {path.name: read_json(path) for path in folder.glob("*.json")}
    registry = jsonschema_rs.Registry([(f"json-schema:///{key}", value) for key, value in schemas.items()])
    return jsonschema_rs.validator_for({"$ref": f"json-schema:///{name}"}, registry=registry)


def test_a_wholly_unlabelled_part_is_read_and_not_written(bench):
    train = bench.rows("train.jsonl", ROWS)
    test = bench.rows("test.jsonl", [{"sentence1": "a", "sentence2": "b", "idx": 7}])
    report = bench.compile("rte", train, test)
    assert (report.read, report.kept, report.dropped) == (4, 3, {"no gold label": 1})
    assert bench.codes(report) == [("W209", "test.jsonl")]
    assert list(bench.registry()) == ["alpaca_rte_train"]


def test_reject_writes_the_good_rows_and_lists_the_others(bench):
    bad = [ROWS[0] | {"label": 7}, "broken", ROWS[1] | {"sentence1": None, "sentence2": " "}]
    source = bench.write("train.jsonl", json_lines([ROWS[0], bad[0], ROWS[1], bad[2]]) + "{x\n")
    report = bench.compile("rte", source, reject=True)
    assert (report.read, report.kept, report.dropped, report.rejected) == (5, 2, {}, 3)
    aside = read_lines(bench.out / "rte/rejected.jsonl")
    places = {row["place"].rsplit(":", 1)[1]: row for row in aside}
    assert set(places) == {"2", "4", "5"}
    assert len(places["4"]["problems"]) == 2 and places["4"]["row"] == bad[2]
    assert places["5"]["row"] == "{x"


@pytest.mark.parametrize("what", ["source", "output", "limit", "manifest"])
def test_a_set_is_compiled_again_when_something_changed(bench, rte_source, what):
    if what == "source":
        bench.rows("train.jsonl", ROWS[:2])
    if what == "output":
        (bench.out / "rte/alpaca_rte-train.json").write_text("[]")
    if what == "manifest":
        (bench.out / "rte/manifest.json").write_text("{}")
    report = bench.compile("rte", rte_source, limit=2 if what == "limit" else None)
    assert not report.up_to_date
    assert len(bench.records("alpaca_rte-train.json")) == (2 if what in ("source", "limit") else 3)


def test_manifest_and_registry_fit_their_schemas(bench, rte_source):
    made = bench.manifest("rte")
    assert list(schema("manifest.json").iter_errors(made)) == []
    assert made.keys() == {each.name for each in fields(Manifest)}
    assert made["counts"].keys() == {*COUNTED, "records"}
    assert (
        made["made_from"].keys()
        == CompileJob(load_spec("rte"), CompileRequest(load_spec("rte")), [], []).identity().keys()
    )
    assert [source.keys() for source in made["made_from"]["sources"]] == [{"split", "path", "sha256"}]
    assert made["tuneyard"] == version()
    for entry in bench.registry().values():
        assert list(schema("dataset_info.json").iter_errors(entry)) == []
    assert made["counts"] == {
        "read": 3,
        "kept": 3,
        "dropped": {},
        "rejected": 0,
        "not_sampled": 0,
        "records": {"alpaca_rte_train": 3},
    }
    assert made["fit"]["train"]["labels"] == {"no": 2, "yes": 1}


@pytest.mark.parametrize("text", ["{", "[1]", '{"a": 1}', "\udcff"])
def test_a_broken_registry_is_refused_and_never_overwritten(bench, text):
    bench.write("out/dataset_info.json", text.encode(errors="surrogateescape"))
    before = tree(bench.out)
    with raises(ContentError, "dataset_info.json"):
        bench.compile_rows("rte", ROWS)
    assert tree(bench.out) == before


def test_a_kill_before_the_registry_is_repaired(bench, rte_source):
    registry = bench.out / "dataset_info.json"
    good = registry.read_bytes()
    registry.unlink()
    Registry(bench.out).finish_publications()
    assert registry.read_bytes() == good
    stale = json.loads(good) | {"alpaca_rte_eval": {"file_name": "rte/alpaca_rte-eval.json"}}
    write_json(registry, stale)
    Registry(bench.out).finish_publications()
    assert read_json(registry) == json.loads(good)


def test_a_smaller_compile_takes_the_place_of_a_larger(bench):
    train, dev = bench.rows("train.jsonl", ROWS), bench.rows("dev.jsonl", ROWS[:1])
    bench.compile("rte", train, dev)
    before = tree(bench.out)
    with raises(RequestError, "--source eval=PATH", "--force"):
        bench.compile("rte", train)
    assert tree(bench.out) == before
    bench.compile("rte", train, force=True)
    assert list(bench.registry()) == ["alpaca_rte_train"]
    assert names(bench.out / "rte") == [
        "alpaca_rte-train.examples.npy",
        "alpaca_rte-train.json",
        "manifest.json",
    ]
    assert list(Registry(bench.out).finish_publications().manifests) == ["rte"]


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
        ("", "PATH; SPLIT=PATH"),
        ("train=", "PATH; SPLIT=PATH"),
        ("missing.jsonl", ""),
        ("evl={folder}/train.jsonl", "evl; eval"),
        ("{folder}/other.jsonl", "splits"),
        ("{folder}/empty", ""),
        ("train={folder}/train.docx", ""),
        ("train={folder}/out/rte/x.jsonl", ""),
    ],
)
def test_sources_that_cannot_be_used_are_refused(bench, source, says):
    for name in ("train.jsonl", "other.jsonl", "train.docx"):
        bench.rows(name, ROWS)
    if "out/rte" in source:
        bench.rows("out/rte/x.jsonl", ROWS)
    (bench.folder / "empty").mkdir()
    with raises(RequestError, says):
        bench.compile("rte", source.format(folder=bench.folder))


def test_without_a_source_the_files_of_data_raw_are_read(bench, monkeypatch):
    monkeypatch.chdir(bench.folder)
    with raises(RequestError, "qa", "--source PATH"):
        bench.compile("qa")
    bench.rows("data/raw/qa/t.jsonl", [{"question": "a", "answer": "b"}])
    assert bench.compile("qa").datasets == {"qa": 1}


def test_a_column_may_be_named(here, bench):
    """Also of a document that is one row; what was named is no change of the spec, but of what was asked."""
    source = bench.write("train.json", json.dumps({"p": "a", "h": "b", "label": 0}, indent=1))
    command = (cli, "compile", "rte", "--source", source, "--out", bench.out)
    named = ("--column", "premise=p", "--column", "hypothesis=h")
    assert "alpaca_rte_train 1" in here(*command, *named).stdout
    assert "up to date" in here(*command, *named).stdout
    assert "stale" not in here(cli, "list", "--out", bench.out).stdout
    assert bench.first("alpaca_rte-train.json")["idx"] == 0


@pytest.mark.parametrize(
    ("spec", "row", "note"),
    [
        (
            "qa",
            {"question": "a", "answer": "b"},
            'using column "question" as question, column "answer" as answer',
        ),
        (
            "pr",
            {"Prompt": "a", "chosen": "b"},
            'using column "Prompt" as prompt, column "chosen" as response',
        ),
        (
            "io",
            {"prompt": "a", "output": "b"},
            'using column "prompt" as instruction, column "output" as output, no column for input',
        ),
        ("rte", ROWS[0], None),
        ("rte", ROWS[0] | {"text_a": "A."}, None),
        ("rte", {"text_a": "A.", "sentence2": "B.", "label": 1}, 'using column "text_a" as premise'),
        ("alpaca-text", {"instruction": "a", "input": "", "output": "b"}, None),
    ],
)
def test_columns_found_by_the_names_in_circulation_are_said(bench, spec, row, note):
    source = bench.rows("train.jsonl", [row])
    assert bench.compile(spec, source).problems.notes == ([f"{source}: {note}"] if note else [])


def test_warnings_are_listed_by_file_and_line(bench):
    plain, odd = ROWS[0], ROWS[0] | {"sentence1": "<|im_end|>"}
    train = bench.rows("train.jsonl", [odd, plain, plain, odd])
    report = bench.compile("rte", train, bench.rows("dev.jsonl", [plain, odd]))
    lines = [(p["code"], p["place"].rpartition("/")[2]) for p in report_as_json(report)["problems"]]
    assert {code for code, _ in lines} >= {"W202", "W205", "W208"}
    places = [(file == "dev.jsonl", int(line)) for file, line in (place.split(":") for _, place in lines)]
    assert places == sorted(places)


def test_labels_that_a_spec_lacks_are_no_rows_to_reject(bench):
    source = bench.rows("train.jsonl", [ROWS[0] | {"label": "entails" if n else 1} for n in range(30)])
    reason = why_failed(bench.compile("rte", source), "rte")
    assert "29 of 30 rows have labels that are not in `labels` (" in reason
    assert "specs/rte.yaml:11)" in reason and "--on-error" not in reason


def test_strict_makes_warnings_errors(bench):
    source = bench.rows("train.jsonl", [ROWS[0], ROWS[0] | {"idx": 9}])
    report = bench.compile("rte", source, strict=True)
    assert report.failed and why_failed(report, "rte").startswith("1 warning, and --strict")
    assert (report.read, report.kept, report.not_written) == (2, 0, 2)
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
    (bench.out / "rte/mine.json").write_text("precious")
    before = tree(bench.out)
    with raises(RequestError, "rte", "1", "mine.json"):
        bench.compile("rte", source, force=True)
    if compiled_before:
        with raises(RequestError, "mine.json"):
            Registry(bench.out).remove("rte")
    assert tree(bench.out) == before


def test_a_linked_folder_is_refused_and_a_linked_registry_stays_a_link(bench):
    source = bench.rows("train.jsonl", ROWS)
    elsewhere = bench.folder / "elsewhere"
    elsewhere.mkdir()
    bench.out.mkdir()
    (bench.out / "rte").symlink_to(elsewhere)
    with raises(RequestError, "rte"):
        bench.compile("rte", source)
    assert (bench.out / "rte").is_symlink()
    (bench.out / "rte").unlink()
    write_json(elsewhere / "info.json", {"mine": {"file_name": "mine.json"}})
    (bench.out / "dataset_info.json").symlink_to(elsewhere / "info.json")
    bench.compile("rte", source)
    assert (bench.out / "dataset_info.json").is_symlink()
    assert set(read_json(elsewhere / "info.json")) == {"mine", "alpaca_rte_train"}


def test_an_up_to_date_compile_has_the_figures_and_names_the_manifest_with_the_warnings(bench):
    rows = [*ROWS, ROWS[0], ROWS[1] | {"sentence1": "<|im_end|>"}, ROWS[2] | {"label": 9}]
    source = bench.rows("train.jsonl", rows)
    first = bench.compile("rte", source, reject=True)
    again = bench.compile("rte", source, reject=True)
    assert again.up_to_date and first.problems.warnings
    for figure in ("read", "kept", "dropped", "rejected", "datasets", "counts", "fit"):
        assert report_as_json(again)[figure] == report_as_json(first)[figure]
    assert counts_line(again).split("  ")[:-2] == counts_line(first).split("  ")[:-1]
    words = ("compile", "rte", "--source", source, "--on-error", "reject", "--out", str(bench.out))
    lines = invoke(cli, *words).stderr.splitlines()
    count = first.problems.count("W")
    assert lines[0] == f"up to date, {count} warnings: {bench.out / 'rte' / 'manifest.json'}"


def appended(path):
    with path.open("ab") as file:
        file.write(path.read_bytes()[-40:])


def rewritten(path):
    path.write_bytes(bytes(reversed(path.read_bytes())))


def dated_back(path):
    time_of = path.stat().st_mtime_ns
    with path.open("r+b") as file:
        file.write(file.read(1))
    os.utime(path, ns=(0, time_of))


def replaced(path):
    copy = path.with_name("copy")
    copy.write_bytes(path.read_bytes())
    os.utime(copy, ns=(0, path.stat().st_mtime_ns))
    copy.replace(path)


@pytest.mark.parametrize("change", [appended, rewritten, dated_back, replaced, Path.unlink])
@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "parquet", "jsonl.gz", "jsonl.zst"])
def test_a_source_that_changes_while_it_is_read_is_refused(bench, monkeypatch, kind, change):
    names = {"jsonl": "lines.jsonl", "json": "array.json", "csv": "table.csv", "parquet": "table.parquet"}
    names |= {"jsonl.gz": "lines.jsonl.gz", "jsonl.zst": "table.csv.zst"}
    source = bench.write(f"train-{names[kind]}", layouts(ROWS)[names[kind]])
    bench.compile("rte", source)
    before = tree(bench.out)
    reader = row_loop.read

    def with_a_writer_in_between(*given, **named):
        yield from reader(*given, **named)
        time.sleep(0.02)  # a file system's clock ticks in some milliseconds
        change(source)

    monkeypatch.setattr(row_loop, "read", with_a_writer_in_between)
    with raises(ContentError, source):
        bench.compile("rte", source, force=True)
    assert tree(bench.out) == before


def leaky(bench, splits, **more):
    """Return a spec as rte's, with its splits in this order."""
    raw = load_spec("rte").raw
    source = raw["source"] | {"splits": {split: [split] for split in splits}}
    return bench.write("rte.yaml", json.dumps(raw | {"source": source} | more))


def test_leaks_are_dropped_from_train_whatever_the_order_of_the_splits(bench):
    train, test = bench.rows("train.jsonl", ROWS), bench.rows("test.jsonl", ROWS[:1])
    report = bench.compile(leaky(bench, ["test", "train"]), train, test)
    assert bench.codes(report) == [("W208", "train.jsonl:1")]
    assert report.quality["premise shared by train and test"] == 1
    report = bench.compile(leaky(bench, ["test", "train"], drop_leaks=True), train, test)
    assert report.datasets == {"alpaca_rte_train": 2, "alpaca_rte_test": 1}
    assert (report.read, report.kept, report.dropped) == (4, 3, {"leak": 1})
    report = bench.compile(leaky(bench, ["test", "train"], drop_leaks=True), test, force=True)
    assert report.datasets == {"alpaca_rte_test": 1}


def test_leaks_cannot_be_dropped_from_a_split_of_another_name(bench):
    spec = leaky(bench, ["learn", "test"], drop_leaks=True)
    with raises(ContentError, "drop_leaks", "train"):
        bench.compile(spec, bench.rows("learn.jsonl", ROWS), bench.rows("test.jsonl", ROWS[:1]))
    assert not bench.out.exists()


def test_another_source_in_the_place_of_the_first_is_said(bench):
    first, second = (bench.rows(name, [{"question": "q", "answer": name}]) for name in ("a.jsonl", "b.jsonl"))
    assert not any("replaced" in note for note in bench.compile("qa", first).problems.notes)
    (note,) = (note for note in bench.compile("qa", second).problems.notes if "replaced" in note)
    printed(note, first, "`dataset:`", "`like: qa`")
    assert not any("replaced" in note for note in bench.compile("qa", second).problems.notes)  # up to date
    bench.rows("b.jsonl", [{"question": "q", "answer": "other"}])
    assert not any("replaced" in note for note in bench.compile("qa", second).problems.notes)
    assert "1 rows, compiled without --limit" in bench.compile("qa", second, limit=1).problems.notes[-1]


def test_a_line_break_in_a_file_name_leaves_each_problem_on_one_line(bench):
    source = bench.rows("odd\nname\u2028.jsonl", [*ROWS, ROWS[0], {**ROWS[1], "label": 7}])
    report = bench.compile("rte", f"train={source}", reject=True)
    lines = [problem.line() for problem in [*report.problems.errors, *report.problems.warnings]]
    assert [len(line.splitlines()) for line in lines] == [1] * 3
    assert all("odd\\nname\\u2028.jsonl:" in line for line in lines)
    assert str(source) in [each["path"] for each in bench.manifest("rte")["made_from"]["sources"]]


@pytest.mark.parametrize("source", ["nyu-mll/glue", "train=nyu-mll/glue"])
def test_a_name_of_the_hub_that_is_no_path_gets_the_hint(bench, source):
    with raises(RequestError, "nyu-mll/glue", "--source hub:nyu-mll/glue"):
        bench.compile("rte", source)


@pytest.mark.parametrize(
    "source",
    [
        "raw/train.jsonl",
        "raw/train.csv.gz",
        "/raw/train",
        "train.jsonl",
        "a/b/c",
        "./owner/name",
        "../owner/name",
        "~/name",
    ],
)
def test_a_path_that_is_no_name_of_the_hub_gets_none(bench, source):
    with raises(RequestError, f"{source}: source not found"):
        bench.compile("rte", f"train={source}")
