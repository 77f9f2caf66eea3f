"""`shards`: a dataset in a folder of files, which have the bytes of the one file one after another."""

import hashlib
import json
import os
import random
import signal
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.messages import raises
from tests.unit.compiler.test_faults import start
from tuneyard.compiler import chunked_reading
from tuneyard.compiler.commands.diff import diff
from tuneyard.compiler.commands.stats import stats
from tuneyard.compiler.publish.registry import Registry
from tuneyard.compiler.verify.dataset import since_compiled
from tuneyard.compiler.write.shards import cut_into_shards
from tuneyard.core.datasets import (
    SHARD_NAME,
    find_dataset,
    loaded_files,
    locate_dataset,
    read_records,
    read_registry,
)
from tuneyard.core.errors import ContentError, RequestError
from tuneyard.core.files import sha256
from tuneyard.core.manifest import manifest_beside, read_manifests
from tuneyard.core.row_index import read_row_index
from tuneyard.eval.datasets.dataset import read_datasets
from tuneyard.eval.datasets.origin import compiles_for
from tuneyard.eval.text import held_out

SPEC = """
about: rows in shards
columns:
  question: [question]
  answer: {names: [answer], is: answer}
  kind: {names: [kind], is: extra}
MOREwrite:
  - {dataset: "cut_{split}", file: "cut.v1-{split}.jsonl", format: alpaca, instruction: "{question}",
     output: "{answer}", keep: [kind], shards: 3}
  - {dataset: "one_{split}", file: "one-{split}.jsonl", like: 0, format: alpaca}
"""
SPLIT = "split: {test: 0.3, stratify: kind, seed: 1}\nfit: {group: kind}\n"
ROWS = [{"question": f"What is {n}苹果\u2028?", "answer": f"{n}", "kind": f"k{n % 2}"} for n in range(20)]


def spec(bench, more=SPLIT):
    return bench.write("cut.yaml", SPEC.replace("MORE", more))


def shards(bench, split="train"):
    folder = bench.out / "cut" / f"cut.v1-{split}"
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def everything(bench):
    """The bytes of every file but the manifest."""
    paths = [path for path in bench.out.rglob("*") if path.is_file() and path.name != "manifest.json"]
    return {str(path.relative_to(bench.out)): path.read_bytes() for path in paths}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text("ab\u2028é", max_size=9), min_size=1, max_size=30), st.integers(1, 40))
def test_shards_are_the_file_in_order_and_of_about_one_size(tmp_path_factory, texts, count):
    path = tmp_path_factory.mktemp("rows") / "a.b.jsonl"
    content = "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts).encode()
    path.write_bytes(content)
    cut_into_shards(path, len(texts), count, hashlib.sha256(content).hexdigest())
    files = sorted((path.parent / "a.b").iterdir())
    assert b"".join(file.read_bytes() for file in files) == content
    assert not path.exists() and len(files) == min(count, len(texts))
    lines = [file.read_bytes().count(b"\n") for file in files]
    assert max(lines) - min(lines) <= 1 and min(lines) >= 1
    assert [file.name for file in files] == [f"{n:05d}-of-{len(files):05d}.jsonl" for n in range(len(files))]
    assert all(SHARD_NAME.fullmatch(file.name) for file in files)


def test_shards_that_differ_from_the_file_are_an_error(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"{}\n{}\n")
    with raises(ContentError, "one of the shards"):
        cut_into_shards(path, 2, 2, sha256(path)[::-1])


@pytest.mark.parametrize(("filled", "loads"), [({0, 1}, False), ({0, 3}, True), (set(), True)])
def test_a_column_that_only_some_shards_fill_is_an_error(tmp_path, filled, loads):
    """LLaMA-Factory takes the type of a column from the first file that os.listdir returns."""
    path = tmp_path / "a.jsonl"
    records = [{"text": "a", "history": [["q", "a"]] if n in filled else []} for n in range(4)]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    digest = sha256(path)
    if loads:
        cut_into_shards(path, 4, 2, digest)
        return
    with raises(ContentError, "a/00001-of-00002.jsonl", "history", "shards"):
        cut_into_shards(path, 4, 2, digest)


def test_a_compile_writes_the_bytes_of_one_file_in_a_folder(bench):
    report = bench.compile(spec(bench), bench.rows("rows.jsonl", ROWS))
    assert report.datasets == {"cut_train": 14, "one_train": 14, "cut_test": 6, "one_test": 6}
    assert list(shards(bench)) == [f"0000{n}-of-00003.jsonl" for n in range(3)]
    one_file = (bench.out / "cut" / "one-train.jsonl").read_bytes()
    assert b"".join(shards(bench).values()) == one_file
    entry = read_registry(bench.out)["cut_train"]
    assert entry["file_name"] == "cut/cut.v1-train"
    dataset = find_dataset("cut_train", bench.out)
    assert read_records(dataset.path) == bench.records("one-train.jsonl")
    manifest, compiled = manifest_beside(dataset.path)
    assert compiled == manifest.files["one-train.jsonl"] and compiled.rows == 14
    index, index_of_one = (read_row_index(bench.out / "cut" / name) for name in ("cut.v1-train", "one-train"))
    assert index.rows == 14 and list(index.fingerprints) == list(index_of_one.fingerprints)
    assert list(index.clusters["kind"]) == list(index_of_one.clusters["kind"])
    assert (bench.out / "cut" / "cut.v1-test.examples.npy").is_file(), "each split has its own"


@pytest.mark.parametrize("more", [SPLIT, ""])
def test_any_number_of_workers_writes_the_same_shards(bench, monkeypatch, more):
    monkeypatch.setattr(chunked_reading, "CHUNK", 200)
    spec_file, source = spec(bench, more), bench.rows("rows.jsonl", ROWS)
    written = []
    for workers in (1, 2):
        bench.compile(spec_file, source, workers=workers, force=True)
        written.append(everything(bench))
    assert written[0] == written[1] and any("-of-00003" in name for name in written[0])


def test_a_split_with_fewer_rows_than_shards_has_a_shard_for_each_row(bench):
    bench.compile(spec(bench, ""), bench.rows("rows.jsonl", ROWS[:2]))
    assert list(shards(bench)) == ["00000-of-00002.jsonl", "00001-of-00002.jsonl"]


def test_a_changed_shard_is_found_and_compiled_again(bench):
    spec_file, source = spec(bench), bench.rows("rows.jsonl", ROWS)
    bench.compile(spec_file, source)
    before = everything(bench)
    assert bench.compile(spec_file, source).up_to_date
    assert not list(problems_of(bench))
    shard = bench.out / "cut" / "cut.v1-train" / "00001-of-00003.jsonl"
    for damage in (lambda: shard.write_bytes(shard.read_bytes()[:-3]), shard.unlink):
        damage()
        assert [problem.code for problem in problems_of(bench)] == ["E431"]
        assert not bench.compile(spec_file, source).up_to_date
        assert everything(bench) == before


@pytest.mark.parametrize("name", ["00003-of-00003.jsonl", "extra.jsonl", ".gitkeep"])
def test_an_empty_file_among_the_shards_is_found(bench, name):
    """It changes no byte of the dataset, and LLaMA-Factory's loader stops at it."""
    spec_file, source = spec(bench), bench.rows("rows.jsonl", ROWS)
    bench.compile(spec_file, source)
    before = everything(bench)
    empty = bench.out / "cut" / "cut.v1-train" / name
    empty.touch()
    assert [problem.code for problem in problems_of(bench)] == ["E431"]
    if name.startswith("00003"):  # a name that only a compile gives
        assert not bench.compile(spec_file, source).up_to_date
        assert everything(bench) == before
        return
    with raises(RequestError, f"cut.v1-train/{name}"):
        bench.compile(spec_file, source)
    assert empty.exists()


def test_no_shard_of_another_number_is_left(bench):
    """LLaMA-Factory loads every file of the folder that the registry names."""
    source = bench.rows("rows.jsonl", ROWS)
    for count in (4, 2, None, 4, 3):
        shards_here = "" if count is None else f", shards: {count}"
        bench.write("cut.yaml", SPEC.replace("MORE", SPLIT).replace(", shards: 3", shards_here))
        bench.compile(bench.folder / "cut.yaml", source)
        folder = bench.out / "cut"
        path = bench.out / str(read_registry(bench.out)["cut_train"]["file_name"])
        if count is None:
            names = ["cut.v1-train.jsonl"]
            assert not (folder / "cut.v1-train").exists()
        else:
            names = [f"{number:05d}-of-{count:05d}.jsonl" for number in range(count)]
            assert not (folder / "cut.v1-train.jsonl").exists()
        assert sorted(file.name for file in loaded_files(path)) == names
        assert len(read_records(path)) == 14


def problems_of(bench):
    return since_compiled(locate_dataset("cut_train", bench.out), bench.out, read_manifests(bench.out))


def test_files_of_others_among_the_shards_are_not_deleted(bench):
    spec_file, source = spec(bench), bench.rows("rows.jsonl", ROWS)
    bench.compile(spec_file, source)
    mine = bench.out / "cut" / "cut.v1-train" / "mine.jsonl"
    mine.write_text("{}\n")
    with raises(RequestError, "cut.v1-train/mine.jsonl"):
        bench.compile(spec_file, source, force=True)
    with raises(RequestError, "cut.v1-train/mine.jsonl"):
        Registry(bench.out).remove("cut")
    assert mine.exists()


def test_shards_give_way_to_one_file_and_back(bench):
    source = bench.rows("rows.jsonl", ROWS)
    bench.compile(spec(bench), source)
    with_shards = everything(bench)
    bench.write("cut.yaml", SPEC.replace("MORE", SPLIT).replace(", shards: 3", ""))
    bench.compile(bench.folder / "cut.yaml", source)
    assert read_registry(bench.out)["cut_train"]["file_name"] == "cut/cut.v1-train.jsonl"
    assert not any("-of-" in name for name in everything(bench))
    bench.compile(spec(bench), source)
    assert everything(bench) == with_shards


def test_statistics_and_differences_read_all_shards_in_order(bench):
    bench.compile(spec(bench), bench.rows("rows.jsonl", ROWS))
    of_shards, of_one = (stats(name, bench.out, None).as_json() for name in ("cut_train", "one_train"))
    assert {**of_shards, "dataset": ""} == {**of_one, "dataset": ""}
    assert diff("cut_train", "one_train", bench.out).same == 14


def test_eval_knows_the_splits_and_clusters_of_shards(bench):
    bench.compile(spec(bench), bench.rows("rows.jsonl", ROWS))
    scored = read_datasets(("cut_train", "one_train", "cut_test", "one_test"), (), folder=bench.out)
    for of_shards, of_one in (scored[:2], scored[2:]):
        assert of_shards.records == of_one.records and of_shards.conversations == of_one.conversations
        assert of_shards.clusters == of_one.clusters and of_shards.cluster == "kind"
        assert list(of_shards.fingerprints) == list(of_one.fingerprints)
    assert scored[0].training_rows.flags.all() and scored[0].training_rows.datasets == ["cut_train"]
    assert scored[0].training_rows.held_out == ["cut_test", "one_test"]
    assert scored[2].training_rows is None
    (compiled, *_) = compiles_for(scored[0].path)
    assert compiled.is_training_file("cut.v1-train") and not compiled.is_training_file("cut.v1-test")
    with raises(RequestError, "--eval-ratio", "cut.v1-train"):
        held_out(scored[0], 0.1, 42)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("cut.v1-{split}.jsonl", "cut-{split}.json", "write.0"),
        ('dataset: "cut_{split}", ', "", "write.0"),
        ("one-{split}.jsonl", "cut.v1-{split}.jsonl", "cut.v1-train.jsonl"),
        ("shards: 3", "shards: 0", "write.0.shards"),
    ],
)
def test_shards_that_cannot_be_are_refused(bench, old, new, words):
    text = SPEC.replace("MORE", SPLIT)
    assert old in text
    with raises(ContentError, words):
        bench.compile(bench.write("cut.yaml", text.replace(old, new)), bench.rows("rows.jsonl", ROWS))


def test_a_full_disk_leaves_the_old_shards(bench, monkeypatch):
    spec_file, source = spec(bench), bench.rows("rows.jsonl", ROWS)
    bench.compile(spec_file, source)
    before = everything(bench)
    real = os.fsync

    def full(handle):
        if "-of-" in str(Path(f"/proc/self/fd/{handle}").readlink()):
            raise OSError(28, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        bench.compile(spec_file, bench.rows("rows.jsonl", ROWS[:-1]))
    assert everything(bench) == before
    assert not [path for path in bench.out.iterdir() if path.name.startswith(".")]


@pytest.mark.slow
def test_kills_leave_the_old_shards_or_the_new(bench):
    spec(bench, "")
    texts = [(bench.folder / "cut.yaml").read_text().replace("shards: 3", f"shards: {n}") for n in (3, 5)]
    sources = [bench.rows(f"{count}.jsonl", ROWS * count) for count in (10, 300)]
    wholes = {}
    for text, source in zip(texts, sources, strict=True):
        spec_file = bench.write("cut.yaml", text)
        began = time.perf_counter()
        start(spec_file, "--source", source, "--out", bench.out, "--force").wait()
        span = time.perf_counter() - began
        wholes[read_manifests(bench.out)["cut"].records["cut_train"]] = everything(bench)
    assert sorted(wholes) == [200, 6000]
    draw = random.Random(1)
    for turn in range(10):
        bench.write("cut.yaml", texts[turn % 2])
        process = start(spec_file, "--source", sources[turn % 2], "--out", bench.out, "--force")
        time.sleep(draw.uniform(0.5, 1) * span)
        process.send_signal(signal.SIGKILL)
        process.wait()
        Registry.settled(bench.out)
        rows = read_manifests(bench.out)["cut"].records["cut_train"]
        assert everything(bench) == wholes[rows]
