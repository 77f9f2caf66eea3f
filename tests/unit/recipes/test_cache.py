"""Answers of LLaMA-Factory that are kept on disk, without asking it."""

import json
import os

import pytest

from tuneyard.recipes import cache
from tuneyard.recipes.answer import Rows
from tuneyard.recipes.cache import folder_hashes, remembered, remove_oldest


@pytest.fixture
def computed(tmp_path, monkeypatch):
    """Return a function that computes an answer, and the list that counts its calls; the cache is empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    calls = []

    def compute(answer):
        def run():
            calls.append(answer)
            return answer

        return run

    return compute, calls


def test_an_answer_is_computed_once_for_what_it_depends_on(computed):
    compute, calls = computed
    for depends_on in (["qwen", 64], ["qwen", 64], ["qwen", 128]):
        assert remembered("rows", depends_on, Rows, compute(Rows(3))) == Rows(3)
    assert len(calls) == 2
    remembered("layout", ["qwen", 64], Rows, compute(Rows(2)))
    assert len(calls) == 3


def test_a_broken_file_is_computed_again(computed, tmp_path):
    compute, calls = computed
    remembered("rows", 1, Rows, compute(Rows(3)))
    (kept,) = (tmp_path / "cache/tuneyard/inspect").iterdir()
    kept.write_text("{")
    for _ in range(2):
        remembered("rows", 1, Rows, compute(Rows(3)))
    assert len(calls) == 2


def test_what_was_missing_may_be_there_the_next_time(computed):
    compute, calls = computed
    for _ in range(2):
        remembered("layout", 1, Rows, compute(Rows(error="its files are not on this machine")))
    assert len(calls) == 2


def test_a_cache_that_cannot_be_written_costs_time_only(computed, tmp_path, monkeypatch):
    compute, calls = computed
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    for _ in range(2):
        assert remembered("rows", 1, Rows, compute(Rows(3))) == Rows(3)
    assert len(calls) == 2


def kept_answers(tmp_path):
    return sorted(path.name for path in (tmp_path / "cache/tuneyard/inspect").iterdir())


def test_a_new_answer_removes_those_that_were_used_least_recently(computed, tmp_path, monkeypatch):
    compute, calls = computed
    names = {}
    for number in range(4):
        before = set(kept_answers(tmp_path)) if names else set()
        remembered("rows", number, Rows, compute(Rows(number)))
        (names[number],) = set(kept_answers(tmp_path)) - before
        path = tmp_path / "cache/tuneyard/inspect" / names[number]
        os.utime(path, (number, number))
    remembered("rows", 0, Rows, compute(Rows()))  # used again: now the newest
    assert len(calls) == 4
    size = path.stat().st_size
    monkeypatch.setattr(cache, "LARGEST", 3 * size)
    remembered("rows", 4, Rows, compute(Rows(number)))
    kept = kept_answers(tmp_path)
    assert len(kept) == 3 and names[0] in kept and names[3] in kept
    assert names[1] not in kept and names[2] not in kept


def test_an_answer_larger_than_the_cache_is_still_kept_once(computed, tmp_path, monkeypatch):
    compute, calls = computed
    monkeypatch.setattr(cache, "LARGEST", 1)
    for depends_on in (1, 1, 2, 2):
        remembered("rows", depends_on, Rows, compute(Rows(depends_on)))
    assert len(calls) == 2 and len(kept_answers(tmp_path)) == 1


def test_files_that_another_process_is_writing_stay(tmp_path):
    half_written = tmp_path / ".rows-1.json.abc"
    other = tmp_path / "notes.txt"
    for path in (half_written, other, tmp_path / "rows-1.json", tmp_path / "rows-2.json"):
        path.write_text("{}")
    os.utime(tmp_path / "rows-1.json", (1, 1))
    remove_oldest(tmp_path, 2)
    assert {path.name for path in tmp_path.iterdir()} == {half_written.name, other.name, "rows-2.json"}


def test_an_answer_that_another_process_reads_survives_its_removal(computed, tmp_path, monkeypatch):
    """A reader that has opened the file sees all of it; the next one computes the answer again."""
    compute, calls = computed
    remembered("rows", 1, Rows, compute(Rows(3)))
    folder = tmp_path / "cache/tuneyard/inspect"
    (path,) = folder.iterdir()
    with path.open() as in_use:
        os.utime(path, (1, 1))
        monkeypatch.setattr(cache, "LARGEST", 1)
        remembered("rows", 2, Rows, compute(Rows(4)))
        assert not path.exists() and json.loads(in_use.read())["rows"] == 3
    assert remembered("rows", 1, Rows, compute(Rows(3))) == Rows(3)
    assert len(calls) == 3


def test_a_model_is_known_by_every_file_but_its_weights(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"1")
    before = folder_hashes(tmp_path)
    assert list(before) == ["config.json"]
    (tmp_path / "model.safetensors").write_bytes(b"2")
    assert folder_hashes(tmp_path) == before
    (tmp_path / "merges.txt").write_text("a b")
    assert folder_hashes(tmp_path) != before
    assert folder_hashes(tmp_path / "owner/name") == {}
