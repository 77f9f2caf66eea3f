"""The state of a dataset: each change of what a compile depends on makes it stale, and is named."""

import contextlib
import json
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.json_files import read_json
from tests.unit.compiler.conftest import ROWS, Bench, questions
from tuneyard.compiler.engine import identity
from tuneyard.compiler.engine.request import CompileRequest
from tuneyard.compiler.publish.compile import compile_dataset
from tuneyard.compiler.publish.compile import state as dataset_state
from tuneyard.compiler.publish.listing import dataset_lines
from tuneyard.compiler.publish.registry import Registry
from tuneyard.compiler.spec.changes import SpecChanges, changed_spec
from tuneyard.compiler.spec.load import load_spec
from tuneyard.core.errors import RequestError

SPEC = """about: a test
source: {files: {train: [a.jsonl, b.jsonl]}}
columns: {question: [question], answer: {names: [answer], is: answer}}
write:
- {dataset: 'x_{split}', file: 'x-{split}.json', format: alpaca,
   instruction: '{question}', output: '{answer}'}
split: {test: 0.2}
"""


@pytest.fixture
def folder(bench: Bench) -> Bench:
    """A folder with a spec `x.yaml`, its two files, and a third that it does not name."""
    bench.write("x.yaml", SPEC)
    for name in "abc":
        bench.rows(
            f"{name}.jsonl", [{**row, "question": f"{name}: {row['question']}"} for row in questions(30)]
        )
    return bench


NO_CHANGES = SpecChanges()


def request_in(bench: Bench, changes: SpecChanges = NO_CHANGES, **options: object) -> CompileRequest:
    spec = changed_spec(str(bench.folder / "x.yaml"), changes)
    return CompileRequest(spec, out=bench.out, **options)


def changes_of(bench: Bench, request: CompileRequest) -> list[str]:
    """The changes of a stale dataset, with places below the folder."""
    state = dataset_state(request)
    assert state.kind == "stale"
    return [str(change).replace(f"{bench.folder}/", "") for change in state.changes]


def test_a_dataset_is_new_then_current(folder):
    request = request_in(folder)
    assert dataset_state(request).kind == "new"
    assert not folder.out.exists()
    compile_dataset(request)
    assert dataset_state(request).kind == "current"


def test_times_and_places_of_equal_files_change_nothing(folder):
    compile_dataset(request_in(folder))
    for path in [*folder.folder.glob("*.*"), *(folder.out / "x").iterdir()]:
        os.utime(path, (1, 1))
    source = folder.folder / "a.jsonl"
    content = source.read_bytes()
    source.unlink()
    source.write_bytes(content)
    assert dataset_state(request_in(folder)).kind == "current"
    assert dataset_state(request_in(folder, workers=2, force=True)).kind == "current"


def edit(name: str, old: str, new: str) -> Callable[[Bench], object]:
    """An edit of a file of the folder."""

    def edited(bench: Bench) -> None:
        path = bench.folder / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    return edited


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (edit("a.jsonl", "A7.", "A8."), "a.jsonl changed"),
        (edit("b.jsonl", "A29.", "A29. "), "b.jsonl changed"),
        (edit("x.yaml", "0.2", "0.3"), "x.yaml changed"),
        (edit("x.yaml", "'{question}'", "'Q: {question}'"), "x.yaml changed"),
        (lambda bench: (bench.out / "x/x-test.json").unlink(), "out/x/x-test.json is missing"),
        (edit("out/x/x-train.json", "A1.", "B1."), "out/x/x-train.json has changed since its compile"),
        (
            lambda bench: (bench.out / "x/x-train.examples.npy").unlink(),
            "out/x/x-train.examples.npy is missing",
        ),
    ],
)
def test_a_changed_file_is_named(folder, change, named):
    compile_dataset(request_in(folder))
    change(folder)
    assert changes_of(folder, request_in(folder)) == [named]
    report = compile_dataset(request_in(folder))
    assert not report.up_to_date
    assert dataset_state(request_in(folder)).kind == "current"


@pytest.mark.parametrize(
    ("options", "changes", "named"),
    [
        ({"limit": 20}, SpecChanges(), "--limit is new"),
        ({"seed": 7}, SpecChanges(), "--seed: 42 → 7"),
        ({"reject": True}, SpecChanges(), "--on-error: fail → reject"),
        ({}, SpecChanges(sample="0.5"), "--sample is new"),
        ({}, SpecChanges(shares=("test=0.4",)), "--split is new"),
        ({}, SpecChanges(columns=("question=answer",)), "--column is new"),
    ],
)
def test_another_option_is_named(folder, options, changes, named):
    compile_dataset(request_in(folder))
    assert changes_of(folder, request_in(folder, changes, **options)) == [named]
    compile_dataset(request_in(folder, changes, **options))
    assert dataset_state(request_in(folder, changes, **options)).kind == "current"
    (change,) = changes_of(folder, request_in(folder))
    assert change.startswith(named.split()[0].removesuffix(":"))


def sources_in(bench: Bench, *names: str) -> tuple[str, ...]:
    return tuple(f"train={bench.folder / name}" for name in names)


@pytest.mark.parametrize(
    ("names", "named"),
    [
        (("b.jsonl", "a.jsonl"), ["the sources have another order"]),
        (("a.jsonl",), ["b.jsonl is gone"]),
        (("a.jsonl", "b.jsonl", "c.jsonl"), ["c.jsonl is new"]),
        (("a.jsonl", "c.jsonl"), ["b.jsonl is gone", "c.jsonl is new"]),
    ],
)
def test_other_sources_are_named(folder, names, named):
    compile_dataset(request_in(folder, sources=sources_in(folder, "a.jsonl", "b.jsonl")))
    assert changes_of(folder, request_in(folder, sources=sources_in(folder, *names))) == named


def test_a_file_of_another_split_is_named(bench):
    train, held_out = bench.rows("a.jsonl", ROWS), bench.rows("b.jsonl", [{**row, "idx": 9} for row in ROWS])
    spec = load_spec("rte")
    before = CompileRequest(spec, sources=(f"train={train}", f"eval={held_out}"), out=bench.out)
    compile_dataset(before)
    now = before._replace(sources=(f"train={held_out}", f"eval={train}"))
    assert changes_of(bench, now) == ["b.jsonl: eval → train", "a.jsonl: train → eval"]


def test_a_new_file_that_a_pattern_of_the_spec_finds_is_named(folder):
    folder.write("x.yaml", SPEC.replace("[a.jsonl, b.jsonl]", "'*.jsonl'"))
    compile_dataset(request_in(folder))
    folder.rows("d.jsonl", questions(2))
    assert changes_of(folder, request_in(folder)) == ["d.jsonl is new"]


def test_a_spec_that_another_one_extends_is_part_of_it(folder):
    folder.write("y.yaml", "like: x.yaml\nsplit: {test: 0.3}\n")
    request = CompileRequest(load_spec(str(folder.folder / "y.yaml")), out=folder.out)
    compile_dataset(request)
    edit("x.yaml", "output: '{answer}'", "output: 'It is {answer}'")(folder)
    request = CompileRequest(load_spec(str(folder.folder / "y.yaml")), out=folder.out)
    assert changes_of(folder, request) == ["y.yaml changed"]


def test_other_code_and_another_library_are_named(folder, monkeypatch):
    compile_dataset(request_in(folder))
    versions = identity.versions
    monkeypatch.setattr(identity, "release", lambda: "0.0.7")
    monkeypatch.setattr(identity, "versions", lambda *names: {**versions(*names), "orjson": "9.9"})
    code, library = changes_of(folder, request_in(folder))
    assert code == "the compiler has changed"
    assert "orjson" in library and "now 9.9" in library


def test_a_dataset_without_its_entries_is_unfinished(folder):
    request = request_in(folder)
    compile_dataset(request)
    registry = folder.registry()
    (folder.out / "dataset_info.json").write_text(json.dumps({"x_train": registry["x_train"]}))
    assert dataset_state(request).kind == "unfinished"
    assert compile_dataset(request).up_to_date
    assert dataset_state(request).kind == "current"
    assert folder.registry() == registry
    with_key = {**registry, "x_train": {**registry["x_train"], "num_samples": 3}}
    (folder.out / "dataset_info.json").write_text(json.dumps(with_key))
    assert dataset_state(request).kind == "current"  # keys of the user are none of the compile


def test_rejected_rows_that_are_gone_make_a_dataset_stale(bench):
    source = bench.rows("a.jsonl", [*questions(3), {"question": "no answer"}])
    request = CompileRequest(load_spec("qa"), sources=(str(source),), out=bench.out, reject=True)
    compile_dataset(request)
    assert dataset_state(request).kind == "current"
    (bench.out / "qa/rejected.jsonl").unlink()
    assert changes_of(bench, request) == ["out/qa/rejected.jsonl is missing"]
    assert not compile_dataset(request).up_to_date
    assert (bench.out / "qa/rejected.jsonl").is_file()


def test_a_dataset_with_warnings_is_not_what_strict_asks_for(bench):
    source = bench.rows("a.jsonl", [*questions(3), *questions(1)])
    request = CompileRequest(load_spec("qa"), sources=(str(source),), out=bench.out)
    assert sum(compile_dataset(request).problems.counts.values()) == 1
    assert dataset_state(request).kind == "current"
    assert changes_of(bench, request._replace(strict=True)) == ["--strict: 1 warning"]


def test_a_seed_that_has_no_effect_is_refused(bench):
    source = bench.rows("a.jsonl", questions(3))
    request = CompileRequest(load_spec("qa"), sources=(str(source),), out=bench.out, seed=42)
    for function in (dataset_state, compile_dataset):
        with pytest.raises(RequestError, match="--seed 42"):
            function(request)


def test_an_edited_manifest_is_not_trusted(folder):
    """A key that no version wrote, or one that is missing, is a change that has a name."""
    request = request_in(folder)
    compile_dataset(request)
    path: Path = folder.out / "x/manifest.json"
    manifest = read_json(path)
    for made_from in ({**manifest["made_from"], "other": 1}, {"sources": manifest["made_from"]["sources"]}):
        path.write_text(json.dumps({**manifest, "made_from": made_from}))
        assert changes_of(folder, request)


@pytest.mark.parametrize("name", ["d.sqlite", "d.db", "D.SQLITE3"])
def test_rows_in_the_log_of_a_database_in_use_are_rows_of_it(bench, name):
    """In WAL mode new rows are in another file until the database is closed."""
    path = bench.write(name, "")
    in_use = bench.write("in-use.sqlite", "")
    request = CompileRequest(load_spec("qa"), sources=(str(path),), out=bench.out)
    with contextlib.closing(sqlite3.connect(in_use)) as database:
        database.execute("pragma journal_mode=wal")
        database.execute("create table a(question, answer)")
        database.executemany("insert into a values (?, ?)", [(f"Q{n}?", f"A{n}.") for n in range(30)])
        database.commit()
        database.execute("pragma wal_checkpoint(truncate)")
        path.write_bytes(in_use.read_bytes())
        assert compile_dataset(request).kept == 30
        assert dataset_state(request).kind == "current"
        database.execute("insert into a values ('new?', 'new.')")
        database.commit()
        assert path.read_bytes() == in_use.read_bytes()
        log = Path(f"{path}-wal")
        log.write_bytes(Path(f"{in_use}-wal").read_bytes())
    assert changes_of(bench, request) == [f"{name} changed"]
    assert f"stale: source {path} has changed" in next(dataset_lines(Registry(bench.out)))
    report = compile_dataset(request)
    assert (report.kept, report.up_to_date) == (31, False)
    assert dataset_state(request).kind == "current"
    assert "stale" not in next(dataset_lines(Registry(bench.out)))


@pytest.mark.parametrize("kind", ["images", "videos", "audios"])
def test_a_medium_that_is_gone_makes_a_dataset_stale(bench, kind):
    """A compile would refuse its row, though it would write the same bytes."""
    name = {"images": "a.png", "videos": "a.mp4", "audios": "a.wav"}[kind]
    Image.new("RGB", (4, 4)).save(bench.write("media/a.png", ""))
    medium = bench.folder / "media" / name
    medium.touch()
    spec = bench.write(
        "seen.yaml",
        "about: a test\nsource: {media_dir: media}\n"
        "columns: {question: [question], answer: [answer], "
        f"{kind}: {{names: [medium], is: {kind}, default: []}}}}\n"
        "write: [{dataset: seen, file: seen.json, format: alpaca, instruction: '{question}', "
        "output: '{answer}'}]\n",
    )
    source = bench.rows("rows.jsonl", [*questions(3), {"question": "Q?", "answer": "A.", "medium": [name]}])
    request = CompileRequest(load_spec(str(spec)), sources=(str(source),), out=bench.out)
    assert compile_dataset(request).kept == 4
    assert dataset_state(request).kind == "current"
    medium.unlink()
    assert changes_of(bench, request) == [f"media/{name} is missing"]
