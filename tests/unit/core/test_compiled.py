"""manifest.json: written and read as one record; another tool's file, and a damaged one."""

import pytest

from tests.json_files import read_json, write_json
from tuneyard.core.datasets.compiled import (
    MANIFEST,
    CompiledFile,
    Manifest,
    manifest_beside,
    read_manifest,
    write_manifest,
)
from tuneyard.core.errors import ContentError

DIGEST = "0a" * 32
SOURCES = [
    {"split": "train", "path": "a.csv", "sha256": "1"},
    {"split": "eval", "path": "hf://x", "sha256": ""},
]
WRITTEN = Manifest(
    about="A test",
    counts={"read": 3, "records": {"a_train": 3}},
    cluster="premise",
    files={"a.json": CompiledFile(3, DIGEST)},
    entries={"a_train": {"file_name": "a/a.json"}},
    made_from={"spec": "a", "seed": 42, "definition": {"split": {"eval": 0.1}}, "sources": SOURCES},
    tuneyard={"version": "1"},
)


def test_a_manifest_is_read_as_it_was_written(tmp_path) -> None:
    write_manifest(tmp_path, WRITTEN)
    manifest = read_manifest(tmp_path)
    assert manifest == WRITTEN
    assert (manifest.spec, manifest.records, manifest.file_of("a_train")) == ("a", {"a_train": 3}, "a.json")
    assert [source.is_local for source in manifest.sources] == [True, False]
    assert manifest_beside(tmp_path / "a.json") == (WRITTEN, CompiledFile(3, DIGEST))
    assert manifest_beside(tmp_path / "b.json") is None


@pytest.mark.parametrize(
    "content",
    [
        {"images": ["a.png"], "files": ["a.json"]},
        {"made_from": None, "cluster": 3, "about": {}},
        [],
    ],
)
def test_a_file_of_another_tool_is_no_manifest(tmp_path, content) -> None:
    write_json(tmp_path / MANIFEST, content)
    assert read_manifest(tmp_path) is None
    assert manifest_beside(tmp_path / "a.json") is None


def test_no_manifest_and_a_broken_one(tmp_path) -> None:
    assert read_manifest(tmp_path) is None
    (tmp_path / MANIFEST).write_text("{")
    with pytest.raises(ContentError):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("made_from", "definition"), "a"),
        (("made_from", "sources", 0), 3),
        (("made_from", "spec"), None),
        (("entries", "a_train"), ["a"]),
        (("files", "a.json"), {"rows": "3"}),
        (("files",), 3),
        (("counts", "records", "a_train"), "three"),
        (("cluster",), 3),
        (("counts", "dropped"), None),
        (("first_problems",), [None]),
    ],
)
def test_a_damaged_manifest_is_an_error_with_its_place(tmp_path, path, value) -> None:
    write_manifest(tmp_path, WRITTEN)
    manifest = read_json(tmp_path / MANIFEST)
    *parents, last = path
    part = manifest
    for key in parents:
        part = part[key]
    part[last] = value
    write_json(tmp_path / MANIFEST, manifest)
    with pytest.raises(ContentError) as error:
        read_manifest(tmp_path)
    assert str(tmp_path / MANIFEST) in str(error.value)
    assert ".".join(map(str, path)) in str(error.value)
