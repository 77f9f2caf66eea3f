"""Answers of LLaMA-Factory that are kept on disk, without asking it."""

import os
from unittest.mock import Mock

import pytest

from tuneyard.core.language.message import Message, _, ngettext
from tuneyard.recipes.llamafactory.answer import Rows
from tuneyard.recipes.llamafactory.cache import code_hash, folder_hashes, remembered


@pytest.fixture
def compute(tmp_path, monkeypatch):
    """Return a function that computes an answer and counts its calls; the cache is empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Mock(return_value=Rows(3))


def test_an_answer_is_computed_once_for_what_it_depends_on(compute):
    for depends_on in (["qwen", 64], ["qwen", 64], ["qwen", 128]):
        assert remembered("rows", depends_on, Rows, compute) == Rows(3)
    assert compute.call_count == 2
    remembered("layout", ["qwen", 64], Rows, compute)
    assert compute.call_count == 3


@pytest.mark.parametrize("text", ["{", '{"rows": "3"}'])
def test_a_broken_file_is_computed_again(compute, tmp_path, text):
    remembered("rows", 1, Rows, compute)
    (kept,) = (tmp_path / "cache/tuneyard/inspect").iterdir()
    kept.write_text(text)
    for _number in range(2):
        remembered("rows", 1, Rows, compute)
    assert compute.call_count == 2


def test_a_message_comes_back_as_one_that_can_be_translated(compute):
    inner = ngettext("{count} turn", "{count} turns", 2, count=2)
    reason = _("LLaMA-Factory drops it: {reason}", reason=_("found {turns}", turns=inner))
    compute.return_value = Rows(3, 1, [(2, reason), (3, "plain: {braces}")])
    first, second = (remembered("rows", 1, Rows, compute) for _number in range(2))
    assert compute.call_count == 1 and first.problems == [(2, reason), (3, "plain: {braces}")]
    (_row, kept), (_other, plain) = second.problems
    assert type(plain) is str and plain == "plain: {braces}"
    assert isinstance(kept, Message) and kept == "LLaMA-Factory drops it: found 2 turns"
    assert kept.template == reason.template
    assert kept.values["reason"].values["turns"].plural == "{count} turns"


@pytest.mark.parametrize("error", ["OSError", _("its files are not on this machine")])
def test_what_was_missing_may_be_there_the_next_time(compute, error):
    compute.return_value = Rows(error=error)
    for _number in range(2):
        remembered("layout", 1, Rows, compute)
    assert compute.call_count == 2


def test_a_cache_that_cannot_be_written_costs_time_only(compute, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    for _number in range(2):
        assert remembered("rows", 1, Rows, compute) == Rows(3)
    assert compute.call_count == 2


def test_a_new_answer_removes_those_that_nobody_has_used_for_a_month(compute, tmp_path):
    folder = tmp_path / "cache/tuneyard/inspect"
    for number in (1, 2):
        remembered("rows", number, Rows, compute)
    half_written = folder / ".rows-1.json.abc"
    half_written.write_text("")
    for path in folder.iterdir():
        os.utime(path, (1, 1))
    for number in (1, 3):  # the first is used again
        remembered("rows", number, Rows, compute)
    assert compute.call_count == 3 and half_written.exists()
    assert len(list(folder.glob("rows-*.json"))) == 2
    remembered("rows", 2, Rows, compute)
    assert compute.call_count == 4


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


@pytest.mark.parametrize(
    "file, counts",
    {
        "core/llamafactory/new.py": True,
        "core/records/answers.py": True,
        "recipes/costs/deep/er.py": True,
        "eval/compare.py": False,
        "recipes/rte.yaml": False,
    }.items(),
)
def test_an_answer_of_other_code_is_not_used(tmp_path, file, counts):
    """Another line anywhere in core/ or recipes/ may change an answer."""
    hashes = set()
    for text in ("a = 1", "a = 2"):
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        code_hash.cache_clear()
        hashes.add(code_hash(tmp_path))
    assert len(hashes) == (2 if counts else 1)
