"""Whose an entry is: the folder's that it names, with what a user added; all else is a user's own."""

import contextlib
import json
import shutil
from dataclasses import replace

import pytest

from tests.cli.scoring import invoke
from tests.folders import names
from tests.json_files import read_json, write_json
from tests.messages import printed, printed_line, raises
from tests.unit.compiler.conftest import ROWS, questions
from tuneyard.compiler.cli import cli
from tuneyard.compiler.engine import row_loop
from tuneyard.compiler.publish import drift, registry
from tuneyard.compiler.publish.listing import dataset_lines
from tuneyard.compiler.publish.registry import Registry
from tuneyard.core.datasets import find_dataset
from tuneyard.core.datasets.compiled import read_manifest, read_manifests
from tuneyard.core.errors import ContentError, RequestError
from tuneyard.core.files import staging
from tuneyard.core.language.message import translated


def settled(bench):
    return Registry(bench.out).finish_publications()


def listed(bench):
    return list(map(translated, dataset_lines(settled(bench))))


def changes_of(bench, name="alpaca_rte_train"):
    dataset = find_dataset(name, bench.out)
    return drift.since_compiled(dataset, bench.out, read_manifests(bench.out))


def differences(*dataset):
    return [(problem.code, problem.field) for problem in changes_of(*dataset)]


def edit(bench, **entries):
    info = bench.registry()
    for name, added in entries.items():
        info[name] = info.get(name, {}) | added
    write_json(bench.out / "dataset_info.json", info)


@contextlib.contextmanager
def staged(bench, target, entries=None):
    """Yield a folder staged beside `target` as a compile of rte leaves it before it is put in place, and its
    manifest."""
    bench.compile_rows("rte", ROWS[:2], out=bench.folder / "other")
    with staging(bench.out / target) as folder:
        shutil.copytree(bench.folder / "other/rte", folder, dirs_exist_ok=True)
        manifest = read_manifest(folder)
        yield folder, manifest if entries is None else replace(manifest, entries=entries)


def test_opening_a_registry_changes_nothing(bench, rte_source):
    """A compile opens it before it reads, and settles it under the lock at its end."""
    path = bench.out / "dataset_info.json"
    path.write_text("{}")
    assert Registry(bench.out).entries == {} and path.read_text() == "{}"
    assert list(settled(bench).entries) == ["alpaca_rte_train"]
    assert bench.registry().keys() == {"alpaca_rte_train"}


def test_a_copied_folder_takes_over_no_entry(bench, rte_source):
    shutil.copytree(bench.out / "rte", bench.out / "backup")
    manifest = bench.out / "backup/manifest.json"
    manifest.write_text(manifest.read_text().replace('"alpaca"', '"sharegpt"'))
    before = bench.registry()
    bench.compile(
        "mnli",
        bench.rows("mnli.jsonl", [ROWS[0] | {"gold_label": "neutral"}]).rename(bench.folder / "train.json"),
    )
    assert bench.registry()["alpaca_rte_train"] == before["alpaca_rte_train"]
    assert "stale: a copied folder, not registered" in listed(bench)[0]
    kept = settled(bench).remove("backup")
    assert kept is not None and kept.entries == {}
    assert "alpaca_rte_train" in bench.registry()


def test_a_listed_set_says_why_it_is_stale(bench, rte_source):
    manifest = bench.out / "rte/manifest.json"
    made = read_json(manifest)
    (line,) = listed(bench)
    assert line.startswith("alpaca_rte_train  3 rows  rte  20") and "stale" not in line
    write_json(manifest, made | {"made_from": made["made_from"] | {"compiler": "old"}})
    assert listed(bench)[0].endswith("  stale: the compiler has changed")
    bench.rows("train.jsonl", ROWS[:2])
    assert listed(bench)[0].endswith(f"  stale: source {rte_source} has changed")
    rte_source.unlink()
    assert listed(bench)[0].endswith(f"  stale: source {rte_source} is gone")


def test_an_own_spec_may_be_called_as_a_bundled_one(bench):
    own = bench.write("pairs.yaml", "like: qa\n")
    bench.compile_rows(own, questions(1))
    assert "stale" not in listed(bench)[0]
    assert f"`tuneyard data compile {own} " in drift.compile_again(read_manifests(bench.out)["pairs"])
    own.write_text("like: qa\ndrop_leaks: true\n")
    assert listed(bench)[0].endswith("  stale: the spec has changed")


def test_a_set_of_an_older_version_is_compiled_again_whatever_its_manifest_lacks(bench, rte_source):
    path = bench.out / "rte/manifest.json"
    manifest = read_json(path)
    made_from = manifest["made_from"] | {"compiler": "older"}
    write_json(path, {"files": manifest["files"], "made_from": made_from})
    assert not bench.compile("rte", rte_source).up_to_date
    assert read_json(path).keys() == manifest.keys()


def test_entries_of_others_are_listed_too(bench, rte_source):
    path = bench.out / "dataset_info.json"
    mine = {"mine": {"file_name": "mine.json"}, "far": {"hf_hub_url": "a/b"}}
    write_json(path, mine | read_json(path))
    lines = listed(bench)
    assert lines[1:] == ["mine  mine.json  not compiled here", "far  a/b  not compiled here"]


def test_specs_are_listed_with_what_they_are_about_in_one_column():
    shown = invoke(cli, "list").stdout.partition("\nspecs\n")[2].partition("\nnext: ")[0]
    lines = [line.removeprefix("  ") for line in shown.splitlines()]
    (rte,) = [line for line in lines if line.startswith("rte ")]
    begins = {len(line) - len(line.partition("  ")[2].lstrip()) for line in lines}
    assert rte.endswith("GLUE RTE as yes/no instructions") and len(begins) == 1


@pytest.mark.parametrize("what", ["another", "itself", "nothing"])
def test_what_a_user_added_to_an_entry_stays(bench, rte_source, what):
    ours = bench.registry()["alpaca_rte_train"]
    changed = {"num_samples": 2, "formatting": "sharegpt", "tags": {}}
    edit(bench, alpaca_rte_train=changed)
    if what == "another":
        bench.compile_rows("qa", questions(1))
    elif what == "itself":
        bench.compile("rte", rte_source, force=True)
    else:
        settled(bench)
    # only a compile of the dataset itself writes its keys again
    expected = ours | ({"num_samples": 2} if what == "itself" else changed)
    assert bench.registry()["alpaca_rte_train"] == expected


def test_pairs_that_become_answers_are_no_longer_ranked(bench):
    source = bench.rows("t.jsonl", [{"q": "a", "c": "b", "r": "d"}])
    write = 'write: [{dataset: s, file: s.jsonl, format: alpaca, instruction: "{q}"'
    pair = "c: {names: [c], is: chosen}, r: {names: [r], is: rejected}"
    bench.compile(bench.write("s.yaml", f"about: a\ncolumns: {{q: [q], {pair}}}\n{write}}}]\n"), source)
    assert bench.registry()["s"]["ranking"] is True
    plain = f'about: a\nignore: [r]\ncolumns: {{q: [q], c: [c]}}\n{write}, output: "{{c}}"}}]\n'
    bench.compile(bench.write("s.yaml", plain), source)
    assert "ranking" not in bench.registry()["s"]


def test_an_entry_that_a_user_turned_to_a_file_of_his_own_stays(bench, rte_source):
    edit(bench, alpaca_rte_train={"file_name": "mine.json"})
    before = bench.registry()
    settled(bench)
    assert bench.registry() == before
    with raises(ContentError, "alpaca_rte_train", "mine.json"):
        bench.compile("rte", rte_source, force=True)


@pytest.mark.parametrize(
    "entry",
    [
        {"file_name": "mine.json"},
        {"file_name": "rte/alpaca_rte-train.json"},
        {"file_name": "gone/x.json"},
        {"hf_hub_url": "a/b"},
    ],
)
def test_entries_of_a_user_stay_whatever_they_name(bench, rte_source, entry):
    edit(bench, mine=entry)
    bench.compile("rte", rte_source, force=True)
    settled(bench).remove("rte")
    assert bench.registry() == {"mine": entry}


def test_a_name_taken_between_planning_and_publishing_is_refused(bench):
    bench.compile_rows("qa", questions(1))
    edit(bench, alpaca_rte_train={"file_name": "mine.json"})
    before = bench.registry()
    with (
        staged(bench, "rte") as (folder, manifest),
        raises(ContentError, "alpaca_rte_train", "mine.json"),
    ):
        settled(bench).publish(folder, "rte", manifest)
    assert bench.registry() == before and not (bench.out / "rte").exists()


@pytest.mark.parametrize("spec", ["rte", "mnli"])
def test_a_file_put_there_between_planning_and_publishing_is_not_replaced(bench, spec):
    bench.compile_rows(spec, ROWS)
    (bench.out / "rte").mkdir(exist_ok=True)
    (bench.out / "rte/mine.json").write_text("precious")
    with (
        staged(bench, "rte") as (folder, manifest),
        raises(RequestError, "mine.json"),
    ):
        settled(bench).publish(folder, "rte", manifest)
    assert (bench.out / "rte/mine.json").read_text() == "precious"


def test_a_set_whose_registration_was_killed_keeps_its_names(bench, rte_source):
    (bench.out / "dataset_info.json").unlink()
    entry = {"file_name": "other/x.json", "formatting": "alpaca"}
    with (
        staged(bench, "other", {"alpaca_rte_train": entry}) as (folder, manifest),
        raises(ContentError, "rte/", "tuneyard data remove rte"),
    ):
        settled(bench).publish(folder, "other", manifest)


def cut(path):
    path.write_bytes(path.read_bytes()[:2000])


def change_one_byte(path):
    path.write_bytes(path.read_bytes().replace(b"yes", b"YES", 1))


@pytest.mark.parametrize("change", [cut, change_one_byte])
def test_a_file_that_is_not_what_was_compiled_is_seen(bench, change):
    source = bench.rows("train.jsonl", ROWS * 20)
    bench.compile("rte", source)
    assert differences(bench) == [] and "changed" not in listed(bench)[0]
    change(bench.out / "rte/alpaca_rte-train.json")
    assert differences(bench) == [("E431", "")]
    (problem,) = changes_of(bench)
    assert f"tuneyard data compile rte --source train={source}" in problem.hint
    printed(listed(bench)[0].rpartition("  ")[2], "changed", "60")
    edit(bench, mine={"file_name": "rte/alpaca_rte-train.json"})
    assert differences(bench, "mine") == [("E431", "")]
    bench.compile("rte", source)
    assert differences(bench) == []


def test_a_dataset_without_a_manifest_was_not_compiled_here(bench):
    def compiled(*name):
        return changes_of(bench, *name) is not None

    bench.compile_rows("rte", ROWS)
    bench.write("out/mine.json", "[]")
    edit(bench, mine={"file_name": "mine.json"}, other={"file_name": "rte/alpaca_rte-train.json"})
    assert compiled() and compiled("other") and not compiled("mine")
    (bench.out / "rte/manifest.json").unlink()
    assert not compiled()


SWAPPED = {"prompt": "output", "query": "input", "response": "instruction"}
COLUMNS = {"prompt": "instruction", "query": "input", "response": "output"}


@pytest.mark.parametrize(
    ("added", "fields"),
    [
        ({"columns": SWAPPED}, ["columns.prompt", "columns.response"]),
        ({"columns": COLUMNS | {"system": "idx"}}, ["columns.system"]),
        ({"formatting": "sharegpt"}, ["formatting"]),
        ({"ranking": True}, ["ranking"]),
        ({"file_name": "mine.json"}, ["file_name"]),
        ({"num_samples": 10, "split": "train[:10]"}, []),
    ],
)
def test_an_entry_that_is_not_what_was_compiled_is_seen_and_what_was_added_is_legal(
    bench, rte_source, added, fields
):
    bench.write("out/mine.json", "[]")
    edit(bench, alpaca_rte_train=added)
    before = bench.registry()
    assert differences(bench) == [("E432", field) for field in fields]
    line = listed(bench)[0]
    assert ("changed:" in line) == bool(fields) and all(f"{field}: " in line for field in fields)
    assert bench.registry() == before  # a list changes nothing


def test_an_up_to_date_compile_writes_its_keys_again(bench, rte_source):
    edit(bench, alpaca_rte_train={"columns": SWAPPED, "num_samples": 2})
    report = bench.compile("rte", rte_source)
    assert report.up_to_date and differences(bench) == []
    assert bench.registry()["alpaca_rte_train"]["num_samples"] == 2


def test_verify_stops_at_a_missing_file_with_exit_code_2(bench, rte_source, here):
    """docs/verify.md (E431): a missing file is a wrong request, and no problem of the dataset's content."""
    path = bench.out / "rte/alpaca_rte-train.json"
    path.unlink()
    assert listed(bench)[0].endswith("changed: the compiled file is missing")
    done = here(cli, "verify", "alpaca_rte_train", "--out", bench.out, code=2)
    printed_line(done.stderr, path, "'alpaca_rte_train'")
    assert "E431" not in done.stdout + done.stderr


@pytest.mark.parametrize("content", [{}, [1], {"images": 3}, {"made_from": 3, "counts": []}])
def test_a_manifest_of_another_tool_is_no_compiled_dataset(bench, content):
    """Folders of images next to `dataset_info.json` have files of that name; listing ended in a traceback."""
    bench.compile_rows("alpaca", [{"instruction": "a", "input": "", "output": "b"}])
    bench.write("out/images/manifest.json", json.dumps(content))
    assert list(read_manifests(bench.out)) == ["alpaca"]
    assert len(listed(bench)) == 1


FILE = "alpaca_rte-train.json"


@pytest.fixture
def source(bench):
    """Rows of rte that are not compiled yet, in a folder of their own."""
    return bench.rows("apart/train.jsonl", ROWS)


def meanwhile(monkeypatch, action):
    """Do something else once, after the next compile has read its first rows."""
    reader = row_loop.read
    waiting = [action]

    def read(*arguments, **options):
        for rows in reader(*arguments, **options):
            if waiting:
                waiting.pop()()
            yield rows

    monkeypatch.setattr(row_loop, "read", read)


def test_a_compile_keeps_what_another_one_has_published_meanwhile(bench, source, monkeypatch):
    """What a compile found at its start is handed on; only entries and manifests are read again."""
    bench.compile_rows("qa", questions(1))
    edit(bench, by_hand={"file_name": "mine.json"})

    def two_others():
        bench.compile("ocnli", bench.rows("dev.jsonl", ROWS))
        bench.compile_rows("qa", questions(3), force=True)

    meanwhile(monkeypatch, two_others)
    bench.compile("rte", source)
    assert set(bench.registry()) == {"qa", "by_hand", "ocnli_eval", "alpaca_rte_train"}
    assert bench.manifest("qa")["counts"]["kept"] == 3
    assert sorted(Registry(bench.out).manifests) == ["ocnli", "qa", "rte"]


def test_the_same_dataset_compiled_meanwhile_is_replaced_whole(bench, source, monkeypatch):
    meanwhile(monkeypatch, lambda: bench.compile_rows("rte", [*ROWS, ROWS[0] | {"idx": 77}]))
    report = bench.compile("rte", source)
    assert bench.manifest("rte")["counts"]["kept"] == report.kept == len(bench.records(FILE)) == len(ROWS)
    assert any("replaced" in note for note in report.problems.notes)


TAKEN_DATASET = """
about: x
columns: {question: [question], answer: {names: [answer], is: answer}}
write:
  - {dataset: alpaca_rte_train, file: a.json, format: alpaca, instruction: "{question}", output: "{answer}"}
"""


@pytest.mark.parametrize("taken", ["by hand", "by a dataset", "by a file"])
def test_what_is_taken_while_a_compile_reads_is_refused(bench, source, monkeypatch, taken):
    bench.compile_rows("qa", questions(2))
    takes = {
        "by hand": lambda: edit(bench, alpaca_rte_train={"file_name": "mine.json"}),
        "by a dataset": lambda: bench.compile_rows(TAKEN_DATASET, questions(1)),
        "by a file": lambda: bench.write("out/rte/mine.json", "precious"),
    }
    meanwhile(monkeypatch, takes[taken])
    with pytest.raises((ContentError, RequestError)):
        bench.compile("rte", source)
    assert set(Registry(bench.out).manifests) - {"spec"} == {"qa"}
    assert not (bench.out / "rte").exists() or names(bench.out / "rte") == ["mine.json"]


def test_what_is_removed_while_a_compile_reads_stays_removed(bench, source, monkeypatch):
    bench.compile_rows("qa", questions(2))
    meanwhile(monkeypatch, lambda: Registry(bench.out).remove("qa"))
    bench.compile("rte", source)
    assert set(bench.registry()) == {"alpaca_rte_train"}


@pytest.mark.parametrize("again", [False, True])
def test_a_compile_reads_its_registry_at_its_start_and_under_the_lock(bench, source, monkeypatch, again):
    if again:
        bench.compile("rte", source)
    readings = []
    for function in ("read_registry", "read_manifests"):
        reader = getattr(registry, function)

        def counted(folder, function=function, reader=reader):
            readings.append(function)
            return reader(folder)

        monkeypatch.setattr(registry, function, counted)
    assert bench.compile("rte", source).up_to_date == again
    assert readings == ["read_registry", "read_manifests"] * 2
