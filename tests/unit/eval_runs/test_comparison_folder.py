"""The folder of a comparison after a kill at each step: the old files or the new ones, and no others."""

import itertools
import json
import shutil
from pathlib import Path

import pytest

from tests.kills import killed_at
from tests.messages import raises
from tuneyard.core.errors import RequestError
from tuneyard.core.files import write_bytes
from tuneyard.eval.compare.folder import JOURNAL, finish_comparison, publish_comparison, refuse_links
from tuneyard.eval.runs.results import COMPARED, PAGE_MARK, PLOTS, check_files


def comparison(word: str, *plots: str, page: bool = True) -> dict[str, bytes]:
    """The files of a comparison, whose content is `word`."""
    table = json.dumps({PLOTS: list(plots), "runs": [], "word": word}).encode()
    files = {"table.md": word.encode(), "table.json": table}
    if page:
        files["report.html"] = f"<head>{PAGE_MARK}{word}".encode()
        files["changed.jsonl"] = word.encode()
    for plot in plots:
        files[plot] = word.encode()
    return files


OLD = comparison("old", "accuracy.png", "rte/confusion.png")
NEW = {
    "another page": comparison("new", "accuracy.png", "mnli/confusion.png"),
    "no page": comparison("new", page=False),
    "more plots": comparison("new", "accuracy.png", "rte/confusion.png", "rte/sizes.png"),
}


def content(out: Path) -> dict[str, bytes]:
    """Each file of OUT that a comparison may have, by its path below OUT."""
    files = {}
    for path in sorted(out.rglob("*")):
        if path.is_file() and path.parts[len(out.parts)] not in ("mine", "base"):
            files[str(path.relative_to(out))] = path.read_bytes()
    return files


@pytest.mark.parametrize("name", NEW)
@pytest.mark.parametrize("before", [OLD, {}])
def test_a_kill_at_each_step_leaves_the_old_comparison_or_the_new_one(tmp_path, name, before) -> None:
    out = tmp_path / "out"
    seen = []
    for step in itertools.count(1):
        shutil.rmtree(out, ignore_errors=True)
        for path, data in {**before, "mine/note.txt": b"mine", "base/rte/results.json": b"{}"}.items():
            write_bytes(out / path, data)
        is_killed = killed_at(step, tmp_path, lambda: publish_comparison(out, NEW[name]))
        if (out / "table.json").exists() and not (out / JOURNAL).exists():
            visible = {path: data for path, data in content(out).items() if not path.startswith(".")}
            assert visible in (before, NEW[name])
        finish_comparison(out)
        assert content(out) in (before, NEW[name])
        assert (out / "mine/note.txt").read_bytes() == b"mine"
        seen.append(content(out) == NEW[name])
        if not is_killed:
            break
    assert seen[0] is False and seen[-1] is True
    assert seen == sorted(seen) and len(seen) > 10


def test_a_kill_of_the_finishing_loses_nothing(tmp_path) -> None:
    out = tmp_path / "out"
    for first, second in itertools.product(range(30, 80, 5), range(1, 30, 6)):
        shutil.rmtree(out, ignore_errors=True)
        for path, data in OLD.items():
            write_bytes(out / path, data)
        if not killed_at(first, tmp_path, lambda: publish_comparison(out, NEW["another page"])):
            break
        killed_at(second, tmp_path, lambda: finish_comparison(out))
        finish_comparison(out)
        assert content(out) in (OLD, NEW["another page"])


@pytest.mark.parametrize("left", [("report.html",), ("report.html", "table.md", "accuracy.png")])
@pytest.mark.parametrize("page", [True, False])
def test_a_report_without_table_json_is_written_again(tmp_path, left, page) -> None:
    for name in left:
        write_bytes(tmp_path / name, OLD[name])
    check_files(tmp_path, COMPARED, PLOTS)
    new = comparison("new", "accuracy.png", page=page)
    publish_comparison(tmp_path, new)
    assert content(tmp_path) == new


@pytest.mark.parametrize(
    "text", ["", "mine", f"<!doctype html>{' ' * 2000}{PAGE_MARK}", PAGE_MARK.replace("compare", "prove")]
)
def test_a_report_of_somebody_else_is_kept(tmp_path, text) -> None:
    (tmp_path / "report.html").write_text(text)
    with raises(RequestError, "report.html"):
        check_files(tmp_path, COMPARED, PLOTS)


def test_the_report_of_an_interrupted_suite_is_not_of_a_comparison(tmp_path) -> None:
    write_bytes(tmp_path / "report.html", OLD["report.html"])
    write_bytes(tmp_path / "run.json", b'{"by": "eval.suite", "steps": ["nli"]}')
    with raises(RequestError, "report.html"):
        check_files(tmp_path, COMPARED, PLOTS)


@pytest.mark.parametrize("kind", ["a link", "a file"])
def test_a_journal_that_is_no_folder_is_refused(tmp_path, kind) -> None:
    elsewhere, out = tmp_path / "elsewhere", tmp_path / "out"
    write_bytes(elsewhere / "table.json", b"secret")
    out.mkdir()
    if kind == "a link":
        (out / JOURNAL).symlink_to(elsewhere)
    else:
        (out / JOURNAL).write_text("x")
    with raises(RequestError, JOURNAL):
        finish_comparison(out)
    assert (elsewhere / "table.json").read_bytes() == b"secret"


def test_a_folder_that_is_a_link_takes_no_plot(tmp_path) -> None:
    elsewhere, out = tmp_path / "elsewhere", tmp_path / "out"
    elsewhere.mkdir()
    out.mkdir()
    (out / "rte").symlink_to(elsewhere)
    with raises(RequestError, "rte"):
        refuse_links(out, ["table.json", "rte/confusion.png"])
