"""What `data restore` brings back: earlier compiles, with their entries, whatever is killed meanwhile."""

import itertools
from pathlib import Path

import pytest

from tests.folders import names
from tests.json_files import read_json, write_json
from tests.kills import killed_at
from tests.messages import raises
from tests.runs_cut import tree
from tests.unit.compiler.conftest import ROWS, Bench
from tuneyard.compiler.publish.registry import Registry
from tuneyard.core.datasets import read_registry
from tuneyard.core.datasets.kept import KEPT, MOST_KEPT, kept_datasets
from tuneyard.core.errors import ContentError, RequestError


def compile_words(bench: Bench, *words: str) -> dict[str, bytes]:
    """Compile a row for each word. Returns the files of the dataset."""
    rows = [ROWS[0] | {"idx": number, "sentence1": f"{word}."} for number, word in enumerate(words)]
    bench.compile_rows("rte", rows)
    return tree(bench.out / "rte")


def references(bench: Bench) -> list[str]:
    return [kept.reference for kept in kept_datasets(bench.out)]


def test_a_restored_compile_has_its_bytes_and_entries_and_can_be_undone(bench: Bench) -> None:
    first = compile_words(bench, "one")
    registry = bench.out / "dataset_info.json"
    entries = read_json(registry)
    entries["alpaca_rte_train"]["num_samples"] = 1  # a user's own key
    write_json(registry, entries)
    second = compile_words(bench, "one", "two")
    entries_of_second = read_registry(bench.out)
    earlier, current = Registry(bench.out).restore("rte")
    assert current is not None and earlier.time != "" and tree(bench.out / "rte") == first
    assert read_registry(bench.out) == entries
    Registry(bench.out).restore("rte")
    assert tree(bench.out / "rte") == second and read_registry(bench.out) == entries_of_second
    assert references(bench) == [earlier.reference]


def test_an_equal_compile_keeps_nothing(bench: Bench) -> None:
    source = bench.rows("train.jsonl", ROWS[:1])
    bench.compile("rte", source)
    report = bench.compile("rte", source, force=True)
    assert names(bench.out) == ["dataset_info.json", "rte"] and report.problems.notes == []


def test_the_last_three_are_kept_by_when_they_were_put_aside(bench: Bench) -> None:
    trees = [compile_words(bench, *"abcdef"[:count]) for count in range(1, 6)]
    assert len(references(bench)) == MOST_KEPT
    Registry(bench.out).restore(references(bench)[-1])
    assert tree(bench.out / "rte") == trees[1]  # of the fifth, the three before are the fourth to the second
    assert tree(kept_datasets(bench.out)[0].folder) == trees[4]


def test_a_removed_dataset_comes_back_and_its_space_can_be_freed(bench: Bench) -> None:
    first = compile_words(bench, "one")
    entries = read_registry(bench.out)
    Registry(bench.out).remove("rte")
    assert read_registry(bench.out) == {} and not (bench.out / "rte").exists()
    with raises(RequestError, "tuneyard data restore rte", "--now"):
        Registry(bench.out).remove("rte")
    Registry(bench.out).restore("rte")
    assert tree(bench.out / "rte") == first and read_registry(bench.out) == entries
    Registry(bench.out).remove("rte")
    Registry(bench.out).delete("rte")
    assert names(bench.out) == ["dataset_info.json"]


def test_one_or_all_of_a_dataset_are_dropped(bench: Bench) -> None:
    for count in range(1, 4):
        compile_words(bench, *"abc"[:count])
    last, before = references(bench)
    Registry(bench.out).drop(last)
    assert references(bench) == [before]
    Registry(bench.out).drop("rte")
    assert names(bench.out) == ["dataset_info.json", "rte"]
    with raises(RequestError, "rte", "none"):
        Registry(bench.out).restore("rte")


def test_a_file_of_the_user_in_the_dataset_is_not_put_aside(bench: Bench) -> None:
    compile_words(bench, "one")
    compile_words(bench, "two")
    (bench.out / "rte/mine.txt").write_text("precious")
    with raises(RequestError, "mine.txt"):
        Registry(bench.out).restore("rte")
    assert (bench.out / "rte/mine.txt").read_text() == "precious"


def test_a_dataset_name_that_another_has_taken_is_not_restored(bench: Bench) -> None:
    compile_words(bench, "one")
    Registry(bench.out).remove("rte")
    write_json(bench.out / "dataset_info.json", {"alpaca_rte_train": {"file_name": "mine.json"}})
    with raises(ContentError, "alpaca_rte_train", "mine.json"):
        Registry(bench.out).restore("rte")
    assert len(references(bench)) == 1


def test_a_link_in_place_of_the_folder_of_the_kept_is_refused(bench: Bench, tmp_path: Path) -> None:
    first = compile_words(bench, "one")
    (tmp_path / "elsewhere").mkdir()
    (bench.out / KEPT).symlink_to(tmp_path / "elsewhere")
    with raises(RequestError, KEPT):
        compile_words(bench, "two")
    assert tree(bench.out / "rte") == first and names(tmp_path / "elsewhere") == []


@pytest.mark.parametrize(
    "content",
    ["{", "[]", '{"dataset": 3}', '{"dataset": "../x", "time": "t", "manifest": "", "entries": {}}'],
)
def test_a_damaged_record_is_named(bench: Bench, content: str) -> None:
    compile_words(bench, "one")
    (bench.out / KEPT).mkdir()
    (bench.out / KEPT / "rte@t.json").write_text(content)
    with raises(ContentError, "rte@t.json"):
        Registry(bench.out).restore("rte")


@pytest.mark.parametrize("can_exchange", [True, False])
@pytest.mark.parametrize("work", ["compile", "restore", "remove"])
def test_a_kill_leaves_the_old_or_the_new_and_what_is_kept(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, work: str, can_exchange: bool
) -> None:
    """After each step: what is in place is whole, and every compile that was there can be restored."""
    if not can_exchange:
        monkeypatch.setattr("tuneyard.core.files._exchange", lambda *_: False)
    for step in itertools.count(1):
        bench.out = bench.folder / f"out{step}"
        old = compile_words(bench, "one")
        new = compile_words(bench, "one", "two")

        def act() -> None:
            if work == "compile":
                compile_words(bench, "three")
            elif work == "restore":
                Registry(bench.out).restore("rte")
            else:
                Registry(bench.out).remove("rte")

        is_killed = killed_at(step, bench.out, act)
        Registry(bench.out).finish_publications()
        left = [tree(kept.folder) for kept in kept_datasets(bench.out)]
        if (bench.out / "rte").exists():
            left.append(tree(bench.out / "rte"))
            assert set(read_registry(bench.out)) == {"alpaca_rte_train"}
        contents = [_records(files) for files in left]
        assert _records(old) in contents
        assert _records(new) in contents
        for kept in kept_datasets(bench.out):
            Registry(bench.out).restore(kept.reference)
        hidden = [name for name in names(bench.out) if "tuneyard-" in name]
        assert hidden == []
        if not is_killed:
            break
    assert step > 5


def _records(files: dict[str, bytes]) -> dict[str, bytes]:
    """The records alone: a manifest has the time of its sources."""
    return {name: data for name, data in files.items() if name.endswith("train.json")}
