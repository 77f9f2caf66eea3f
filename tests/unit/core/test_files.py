"""Files and folders are the old ones or the new ones, whatever happens in between."""

import fcntl
import json
import os
from pathlib import Path

import pytest

from tests.folders import names
from tests.messages import printed, raises
from tuneyard.core import files
from tuneyard.core.errors import ContentError, RequestError
from tuneyard.core.files import names_folder


def test_an_atomic_file_appears_whole_with_the_usual_mode(tmp_path):
    target = tmp_path / "new/a.json"
    files.write_json(target, {"text": "是"})
    assert target.read_bytes() == '{\n  "text": "是"\n}\n'.encode()
    plain = tmp_path / "plain"
    plain.touch()
    assert target.stat().st_mode == plain.stat().st_mode


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    files.write_text(target, "old")
    with pytest.raises(ZeroDivisionError), files.atomic(target) as file:
        file.write(b"half")
        raise ZeroDivisionError
    assert target.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_an_error_of_a_temporary_file_names_the_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the system refuses is `.a.json.XXXX`, of which the user knows nothing."""
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(IsADirectoryError) as refused:
        files.write_json(tmp_path / "folder.json", {})
    assert refused.value.filename == str(tmp_path / "folder.json")
    monkeypatch.setattr("secrets.token_hex", lambda _: "7" * 300)  # too long for a name
    with pytest.raises(OSError) as refused:
        files.write_json(tmp_path / "a.json", {})
    assert refused.value.filename == str(tmp_path / "a.json")
    with pytest.raises(OSError) as refused, files.staging(tmp_path / "rte"):
        pass
    assert refused.value.filename == str(tmp_path / "rte")


def test_an_error_inside_a_staged_folder_names_the_file_to_be(tmp_path: Path) -> None:
    with pytest.raises(PermissionError) as refused, files.staging(tmp_path / "rte") as stage:
        raise PermissionError(13, "Permission denied", str(stage / "a/b.json"))
    assert refused.value.filename == str(tmp_path / "rte/a/b.json")
    with pytest.raises(PermissionError) as refused, files.staging(tmp_path / "rte"):
        raise PermissionError(13, "Permission denied", str(tmp_path / "raw/.rte.jsonl"))
    assert refused.value.filename == str(tmp_path / "raw/.rte.jsonl")


def test_nan_is_refused_and_ascii_is_kept_where_asked(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "a.json", {"loss": float("nan")})
    files.write_json(tmp_path / "b.json", "是", ascii_only=True)
    assert (tmp_path / "b.json").read_bytes() == b'"\\u662f"\n'
    assert not (tmp_path / "a.json").exists()


@pytest.mark.parametrize(
    ("data", "facts"),
    [
        (b'{\n "a": }', "a.json:2; JSON; column 7"),
        (b"\xff{}", "byte 0; a.json; UTF-8"),
        (b"[" * 100_000, "a.json:1"),
        (b"9" * 5000, ""),
        (b"[1]", "JSON"),
    ],
)
def test_broken_json_is_named_with_its_place(tmp_path: Path, data: bytes, facts: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(data)
    with raises(ContentError, facts):
        files.read_object(path)


def put(target: Path, text: str) -> None:
    with files.staging(target) as stage:
        (stage / "a.txt").write_text(text)
        (stage / "b.txt").write_text(text)
        with files.locked(target.parent):
            files.publish(stage, target)


@pytest.mark.parametrize("can_exchange", [True, False])
def test_a_published_folder_replaces_the_old_one_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, can_exchange: bool
) -> None:
    if not can_exchange:
        monkeypatch.setattr(files, "_exchange", lambda *_: False)
    target = tmp_path / "set"
    put(target, "old")
    (target / "stray.txt").write_text("of the old set")
    put(target, "new")
    assert {path.name: path.read_text() for path in target.iterdir()} == {"a.txt": "new", "b.txt": "new"}
    assert names(tmp_path) == ["set"]


@pytest.mark.parametrize("old_is_there", [True, False])
def test_a_journal_is_finished_by_the_next_command(tmp_path: Path, old_is_there: bool) -> None:
    (tmp_path / ".set.tuneyard-new").mkdir()
    (tmp_path / ".set.tuneyard-new/a.txt").write_text("new")
    old = tmp_path / ("set" if old_is_there else ".set.tuneyard-old")
    old.mkdir()
    (old / "a.txt").write_text("old")
    with files.recovered(tmp_path):
        pass
    assert (tmp_path / "set/a.txt").read_text() == "new"
    assert names(tmp_path) == ["set"]


def test_only_stages_of_the_dead_are_dropped(tmp_path: Path) -> None:
    with files.staging(tmp_path / "alive") as stage:
        dead = ".dead.tuneyard-0123456789abcdef"
        foreign = {".notes.tuneyard-backup", ".notes.tuneyard-20261128"}
        for name in (dead, *foreign):
            (tmp_path / name).mkdir()
        with files.recovered(tmp_path):
            pass
        assert stage.is_dir()
        assert foreign == {*names(tmp_path)} - {stage.name}


def test_versions_leave_out_what_is_not_installed() -> None:
    found = files.versions("click", "no-such-package")
    assert list(found) == ["click"]
    assert json.dumps(found)


def test_a_folder_that_is_not_there_is_told_by_its_nearest_neighbour(tmp_path: Path) -> None:
    for name in ("demo-base", "unlike"):
        (tmp_path / "models" / name).mkdir(parents=True)
    said = files.no_folder(f"{tmp_path}/models/demo-bas", "no network")
    assert said.endswith('models/demo-base"?')
    printed(said, f"{tmp_path}/models/demo-bas")
    said = files.no_folder(f"{tmp_path}/models/qwen", "no network")
    assert said.endswith("models: demo-base, unlike; no network")
    other = f"{tmp_path}/nowhere/demo-base"
    assert files.no_folder(other, "no network") == f"{other}: no such folder; no network"


def test_a_lock_keeps_others_out_until_it_is_given_back(tmp_path: Path) -> None:
    handle = os.open(tmp_path, os.O_RDONLY)
    try:
        with files.locked(tmp_path), pytest.raises(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(handle)


def test_a_place_that_takes_no_folder_is_named():
    with raises(RequestError, "/proc/x: no folder can be made there"):
        files.make_folder(Path("/proc/x"))


@pytest.mark.parametrize("below", ["", "NAME"])
def test_a_link_that_leads_nowhere_is_named(tmp_path, below):
    """A folder cannot be made in its place: the system would only say that it exists."""
    (tmp_path / "out").symlink_to(tmp_path / "gone")
    with raises(RequestError, "out"):
        files.make_folder(tmp_path / "out" / below)
    (tmp_path / "gone").mkdir()
    files.make_folder(tmp_path / "out" / below)
    assert (tmp_path / "gone" / below).is_dir()


@pytest.mark.parametrize(
    ("name", "is_folder"),
    [
        ("a", True), ("a.b", True), ("集\u3000合", True), ("a b", True), ("", False), ("a/b", False),
        (".a", False), ("..", False), ("/a", False), ("-rf", False), ("a\0b", False), ("a\nb", False),
        ("a\tb", False), ("a\u202eb", False), ("x" * 300, False), ("集" * 70, False), ("a\ud800", False),
    ],
)  # fmt: skip
def test_a_name_that_can_be_a_folder_is_one_visible_part_of_a_path(name: str, is_folder: bool) -> None:
    assert names_folder(name) == is_folder


def test_a_missing_path_names_only_what_is_there(working_folder: Path) -> None:
    Path("x.jsonl").write_text("{}")
    assert files.near_name(Path("x.json")) == 'did you mean "x.jsonl"?'
    assert "did you mean" not in files.near_name(Path("nowhere/x.json"))
    Path("rec.yaml").write_text("")
    assert "did you mean" not in files.near_name(Path("rte_typo.yaml"))
    assert "x.jsonl is a file, expected a folder: did you mean" in files.near_name(Path("x.jsonl/foo.yaml"))
    Path("names").mkdir()
    Path("names/zzy\nerror: forged").write_text("")
    assert "\n" not in files.near_name(Path("names/abc"))


def test_of_a_folder_with_many_files_the_command_that_lists_them_is_named(tmp_path: Path) -> None:
    for number in range(9):
        (tmp_path / f"part-{number}.csv").write_text("")
    assert files.near_name(tmp_path / "x.parquet") == f"name one that is there: ls {tmp_path}"
    (tmp_path / "part-8.csv").unlink()
    assert files.near_name(tmp_path / "x.parquet").startswith(f"in {tmp_path}: part-0.csv, part-1.csv")


def test_a_free_name_has_the_first_number_that_no_file_has(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    for name in ("report.html", "report-2.html", "report-3.html"):
        assert files.free_path(path) == tmp_path / name
        (tmp_path / name).write_text("")
