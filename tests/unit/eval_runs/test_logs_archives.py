"""inspect's `.eval`: zip archives whose members are packed by Zstandard, also damaged ones and bombs."""

import json
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pytest

from tests.conftest import ROOT
from tests.messages import raises
from tuneyard.core.errors import ContentError
from tuneyard.eval.runs import archives
from tuneyard.eval.runs.logs import read_log

LOG = next(ROOT.glob("tests/golden/compare/tools/inspect_ai/*_even_*.eval"))
HEADER: dict[str, object] = {"status": "success", "eval": {"task": "t", "model": "m"}}
JOURNAL: dict[str, object] = {"_journal/start.json": {}}


def sample(number: int, value: object = "C") -> dict[str, object]:
    scores = {"match": {"value": value, "answer": "yes"}}
    return {"id": number, "epoch": 1, "input": "q", "target": "yes", "scores": scores}


def archive(path: Path, members: Mapping[str, object], kind: int = zipfile.ZIP_DEFLATED) -> Path:
    """An archive of JSON values, or of bytes as they are."""
    with zipfile.ZipFile(path, "w", kind) as written:
        for name, value in {**JOURNAL, **members}.items():
            written.writestr(name, value if isinstance(value, bytes) else json.dumps(value))
    return path


def zstd_archive(path: Path, name: str, content: bytes, checksum: int | None = None) -> Path:
    """An archive whose last member is packed by Zstandard, as inspect's own zipfile does."""
    archive(
        path, {"header.json": HEADER, name: pa.compress(content, "zstd", asbytes=True)}, zipfile.ZIP_STORED
    )
    data = bytearray(path.read_bytes())
    crc = zlib.crc32(content) if checksum is None else checksum
    with zipfile.ZipFile(path) as written:
        local = written.getinfo(name).header_offset
    central = data.rindex(b"PK\x01\x02")
    for place, offset in ((local, 8), (central, 10)):
        struct.pack_into("<H", data, place + offset, archives.ZSTANDARD)
    for place, offset in ((local, 14), (central, 16)):
        struct.pack_into("<I", data, place + offset, crc)
    for place, offset in ((local, 22), (central, 24)):
        struct.pack_into("<I", data, place + offset, min(len(content), 2**32 - 1))
    path.write_bytes(data)
    return path


def test_members_are_read_in_each_packing(tmp_path: Path) -> None:
    members: dict[str, object] = {"header.json": HEADER, "samples/1_epoch_1.json": sample(1)}
    for kind in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        assert read_log(archive(tmp_path / "x.eval", members, kind))[0].correct == [True]
    content = json.dumps(sample(1, "I")).encode()
    assert read_log(zstd_archive(tmp_path / "x.eval", "samples/1_epoch_1.json", content))[0].correct == [
        False
    ]


def test_of_two_members_of_one_name_the_last_counts(tmp_path: Path) -> None:
    """inspect writes a sample again that it ran again."""
    path = archive(tmp_path / "x.eval", {"header.json": HEADER, "samples/1_epoch_1.json": sample(1, "I")})
    with zipfile.ZipFile(path, "a") as written, pytest.warns(UserWarning):
        written.writestr("samples/1_epoch_1.json", json.dumps(sample(1, "C")))
    assert read_log(path)[0].correct == [True]


def test_a_run_that_was_broken_off_has_no_header(tmp_path: Path) -> None:
    with raises(ContentError, "x.eval", "started", "inspect eval-retry"):
        read_log(archive(tmp_path / "x.eval", {"samples/1_epoch_1.json": sample(1)}))


@pytest.mark.parametrize("kind", [zipfile.ZIP_DEFLATED, archives.ZSTANDARD])
@pytest.mark.parametrize("size", [(1 << 20) + 1, 1 << 26])
def test_a_member_that_unpacks_beyond_its_bound_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: int, size: int
) -> None:
    monkeypatch.setattr(archives, "LARGEST_MEMBER", 1 << 20)
    name, content = "samples/1_epoch_1.json", b" " * size
    if kind == archives.ZSTANDARD:
        path = zstd_archive(tmp_path / "x.eval", name, content)
    else:
        path = archive(tmp_path / "x.eval", {"header.json": HEADER, name: content})
    with raises(ContentError, f"x.eval/{name}", "1 MiB"):
        read_log(path)


def test_many_members_within_their_bound_are_refused_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "LARGEST_TOTAL", 1 << 16)
    members = {f"samples/{n}_epoch_1.json": {**sample(n), "events": " " * 9000} for n in range(9)}
    with raises(ContentError, "x.eval", "GiB"):
        read_log(archive(tmp_path / "x.eval", {"header.json": HEADER, **members}))


@pytest.mark.parametrize(
    ("members", "facts"),
    [
        ({"header.json": []}, "header.json; an object"),
        ({"header.json": b"{"}, "header.json:1; JSON"),
        ({"header.json": b"\xff"}, "header.json; UTF-8"),
        ({"header.json": {"status": "error"}}, "error; success"),
        ({"header.json": HEADER}, "x.eval; --no-log-samples"),
        ({"header.json": HEADER, "samples/1_epoch_1.json": [1]}, "samples/1_epoch_1.json; an object"),
        ({"header.json": HEADER, "samples/1_epoch_1.json": {}}, "samples/1_epoch_1.json; score"),
    ],
)
def test_a_broken_member_is_an_error_with_its_place(
    tmp_path: Path, members: dict[str, object], facts: str
) -> None:
    with raises(ContentError, "x.eval", facts):
        read_log(archive(tmp_path / "x.eval", members))


def test_a_wrong_checksum_is_damage(tmp_path: Path) -> None:
    path = zstd_archive(tmp_path / "x.eval", "samples/1_epoch_1.json", json.dumps(sample(1)).encode(), 7)
    with raises(ContentError, "samples/1_epoch_1.json", "checksum"):
        read_log(path)


def test_each_cut_and_each_wrong_byte_of_a_real_log_is_a_clear_error(tmp_path: Path) -> None:
    content = LOG.read_bytes()
    (whole,) = read_log(LOG)
    path = tmp_path / "x.eval"
    for place in range(0, len(content), 97):
        flipped = bytearray(content)
        flipped[place] ^= 0xFF
        for damaged in (content[:place], bytes(flipped)):
            path.write_bytes(damaged)
            try:
                runs = read_log(path)
            except ContentError as error:
                assert str(path) in str(error)
            else:  # a byte that nothing reads
                assert [run.correct for run in runs] == [whole.correct]
