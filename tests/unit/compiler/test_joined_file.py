"""A file that is joined from parts: after an error or Ctrl-C nothing more is copied."""

import os
import time

import pytest

from tuneyard.compiler.read.inputs import Input, hashing
from tuneyard.compiler.write import joined_file
from tuneyard.compiler.write.joined_file import JoinedFile
from tuneyard.compiler.write.record_file import RecordFile
from tuneyard.core import files
from tuneyard.core.files import sha256

PARTS, RECORDS = 8, 50


def parts(folder):
    for number in range(PARTS):
        with RecordFile(folder / f"part-{number}.jsonl") as file:
            lines = [b'{"text":"%d %d"}\n' % (number, record) for record in range(RECORDS)]
            file.add(b"".join(lines), RECORDS)
        yield file.part()


def test_parts_are_joined_in_order_and_deleted(tmp_path):
    whole = JoinedFile(tmp_path / "all.jsonl")
    with whole as file:
        for part in parts(tmp_path):
            file.add(part)
    lines = (tmp_path / "all.jsonl").read_text().splitlines()
    assert lines == [f'{{"text":"{part} {record}"}}' for part in range(PARTS) for record in range(RECORDS)]
    assert [path.name for path in tmp_path.iterdir()] == ["all.jsonl"]
    assert whole.records == PARTS * RECORDS and whole.sha256 == sha256(tmp_path / "all.jsonl")


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_ctrl_c_does_not_wait_for_the_parts_that_are_left(tmp_path, monkeypatch, error):
    """A read of 100 bytes, in the second part, goes on until the error has stopped the copy."""
    reads = []
    pread = os.pread
    whole = JoinedFile(tmp_path / "all.jsonl")

    def read_slowly(*place):
        reads.append(place)
        latest = time.monotonic() + 5
        while len(reads) == 12 and not whole._is_stopped and time.monotonic() < latest:
            time.sleep(0.001)
        return pread(*place)

    monkeypatch.setattr(joined_file, "COPIED", 100)
    monkeypatch.setattr(os, "pread", read_slowly)
    written = list(parts(tmp_path))
    with pytest.raises(error), whole:
        for part in written:
            whole.add(part)
        while len(reads) < 12:  # in the second part
            time.sleep(0.001)
        raise error
    assert len(reads) <= 14


def test_ctrl_c_does_not_wait_for_the_hashes_of_the_sources(tmp_path, monkeypatch):
    source = tmp_path / "large.jsonl"
    with source.open("wb") as file:
        file.truncate(100 << 20)
    pieces = []
    hashed = files.sha256

    def hash_slowly(path, moved):
        def move(size):
            pieces.append(size)
            time.sleep(0.01)
            moved(size)

        return hashed(path, move)

    monkeypatch.setattr("tuneyard.compiler.read.inputs.sha256", hash_slowly)
    with pytest.raises(KeyboardInterrupt), hashing([Input("train", source)]):
        while len(pieces) < 3:
            time.sleep(0.001)
        raise KeyboardInterrupt
    assert len(pieces) < 50, "of 100"
