"""python -m eval.compare as a user runs it."""

import json
import os
from pathlib import Path

import click
import pytest

from tests.cli.scoring import call
from tests.conftest import ROOT, Here, Run
from tests.fake_runs import answers, demo, write_run
from tests.folders import names
from tests.json_files import read_json, read_lines, write_json
from tests.messages import printed_line, raises
from tests.processes import imported
from tests.tables import tables_of, without_tables
from tuneyard.core.errors import RequestError
from tuneyard.eval.compare.__main__ import cli, title_of
from tuneyard.eval.runs.find import ScoredRunSource

GOLDEN = ROOT / "tests/golden/compare/demo.md"
PLOTS = [
    "accuracy.png",
    "confusion.png",
    "model_comparison.png",
    "overall_accuracy_comparison.png",
    "type_accuracy_comparison.png",
]


def test_comparing_imports_no_heavy_module(run: Run, tmp_path: Path) -> None:
    write_run(tmp_path, "base", "s", ["yes", "no"], ["yes", "no"])
    done = run("-X", "importtime", "-m", "eval.compare", tmp_path, "--out", tmp_path)
    packages = imported(done.stderr)
    assert {"numpy", "matplotlib"} <= packages
    assert not {"torch", "transformers", "scipy", "pandas", "jsonschema"} & packages
    assert (tmp_path / "accuracy.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("unrendered")
def test_the_demo_page_is_golden(here: Here, tmp_path: Path) -> None:
    demo(tmp_path)
    done = here(cli, tmp_path, "--title", "The demo", "--out", tmp_path)
    text = (tmp_path / "table.md").read_text(encoding="utf-8")
    golden = GOLDEN.read_text(encoding="utf-8")
    assert without_tables(text) == without_tables(golden)
    for table, expected in zip(tables_of(text), tables_of(golden), strict=True):
        assert table.has(expected), expected
    verdict, _, table = done.stdout.partition("\n\n")
    assert text.startswith(f"{verdict}\n") and "The rest is in" in done.stderr
    models = [cells[0] for cells in tables_of(table)[0].rows]
    assert models == ["mnli ←", "merge", "rte", "base", "majority-class baseline"]  # the best first
    found = read_json(tmp_path / "table.json")
    assert found["mean"]["ship"] == "mnli"
    changed = read_lines(tmp_path / "changed.jsonl")
    fixed = [one for one in changed if (one["model"], one["change"]) == ("merge", "fixed")]
    assert len(fixed) == 134 + 131 and all(one["expected"] == one["predicted"] for one in fixed)
    printed_line(done.stderr, "accuracy.png", "demo_mnli_eval/confusion.png")


def test_the_title_of_many_results_names_the_first(tmp_path: Path) -> None:
    assert title_of([ScoredRunSource(tmp_path, name) for name in "abcde"]) == "Report on a, b, c and 2 more"


def test_a_folder_without_runs_is_shown_next_to_the_runs_that_are_here(working_folder: Path) -> None:
    for folder in ("data/mine", "results/begun"):
        Path(folder).mkdir(parents=True)
    with raises(RequestError, "data: mine; score a model first", "--out results/MODEL"):
        call(cli, "data", "--out", "out")
    for folder, name, fact in [
        ("begun", "run.json", "--resume"),
        ("a", "adapter_config.json", "--adapter a"),
    ]:
        Path(folder).mkdir()
        write_json(Path(folder, name), {})
        with raises(RequestError, fact):
            call(cli, folder, "--out", "out")
    for folder in ("first", "results/demo"):
        demo(Path(folder))
        write_json(Path(folder, "run.json"), {})
    write_json(Path("results/begun/run.json"), {})
    with raises(RequestError, "runs are in first, results/demo: tuneyard eval compare first --out OUT"):
        call(cli, "data", "--out", "out")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(here: Here, tmp_path: Path) -> None:
    demo(tmp_path / "runs")
    (tmp_path / "closed").mkdir(mode=0o500)
    done = here(cli, tmp_path / "runs", "--out", tmp_path / "closed/x", code=2)
    assert "Permission denied" in done.stderr


@pytest.mark.parametrize("out", ["file", "runs/base"])
def test_a_file_or_the_results_of_a_model_in_the_place_of_out(tmp_path: Path, out: str) -> None:
    demo(tmp_path / "runs")
    (tmp_path / "file").write_text("mine")
    with raises(RequestError, f"{out}: "):
        call(cli, tmp_path / "runs", "--out", tmp_path / out)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    "run_json",
    [
        {"settings": {"command": "eval.sweep"}, "models": {"base": ""}, "datasets": {"rows": ""}},
        {"by": "eval.suite", "steps": ["nli"]},
    ],
)
def test_the_table_of_a_sweep_or_a_suite_is_not_replaced(tmp_path: Path, run_json: object) -> None:
    demo(tmp_path)
    write_json(tmp_path / "run.json", run_json)
    (tmp_path / "table.md").write_text("of all points")
    with raises(RequestError, "table.md"):
        call(cli, tmp_path, "--out", tmp_path)
    assert (tmp_path / "table.md").read_text() == "of all points"


@pytest.mark.usefixtures("without_plots")
def test_expected_texts_of_many_words_are_cut_in_table_and_warnings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = ["One line\n| and another, " + "word " * 100 + end for end in "ab"]
    write_run(tmp_path / "runs", "base", "texts", texts, ["another " * 100] * 2)
    call(cli, tmp_path / "runs", "--out", tmp_path / "out")
    printed = capsys.readouterr()
    assert "One line" in printed.out and "One line" in printed.err
    assert max(map(len, printed.out.splitlines()[:4])) < 160
    assert max(map(len, printed.err.splitlines())) < 300


def guide(folder: Path, right: list[bool], **changes: object) -> Path:
    """An evaluation_results.json as the defect guide's program writes it, in `folder`."""
    kinds = ["网卡故障", "主板故障"] * (len(right) // 2)
    labels = ["网络", "主机"] * (len(right) // 2)
    results = [
        {"subtype": kind, "type": "硬件", "user": f"报告{n}", "expected": label, "is_correct": good,
         "predicted": label if good else "无", "model_output": "判断"}
        for n, (kind, label, good) in enumerate(zip(kinds, labels, right, strict=True))
    ]  # fmt: skip
    shares = {
        kind: {"correct": sum(g for k, g in zip(kinds, right, strict=True) if k == kind),
               "total": kinds.count(kind)}
        for kind in set(kinds)
    }  # fmt: skip
    folder.mkdir()
    fields = {"overall_accuracy": sum(right) / len(right), "subtype_accuracy": shares, "results": results}
    path = folder / "evaluation_results.json"
    write_json(path, fields | changes)
    return path


BEFORE, AFTER = [True] * 20 + [False] * 40, [True] * 50 + [False] * 10


@pytest.mark.usefixtures("unrendered")
def test_the_guides_own_results_are_compared_row_by_row(here: Here, tmp_path: Path) -> None:
    a, b = guide(tmp_path / "a", BEFORE), guide(tmp_path / "b", AFTER)
    done = here(cli, a, b, "--out", tmp_path / "ab", "--margin", 0.05)
    assert "0.05 is 0.05 points" in done.stderr
    assert "Ship b: 83.3 %, against 33.3 % for a." in done.stdout
    assert "mid-p McNemar" in (tmp_path / "ab/table.md").read_text(encoding="utf-8")
    assert set(PLOTS) - {"confusion.png"} <= {path.name for path in (tmp_path / "ab").iterdir()}
    assert json.dumps("报告59") in (tmp_path / "ab/report.html").read_text()
    other = read_json(b)
    other["results"][3]["user"] = "另一份报告"
    write_json(b, other)
    assert "scored on different data" in here(cli, a, b, "--out", tmp_path, code=2).stderr


@pytest.mark.parametrize("totals", [{}, {"type_accuracy": {"x": {"total": 10**15}}}])
def test_totals_without_rows_are_refused_with_the_fix(
    here: Here, tmp_path: Path, totals: dict[str, object]
) -> None:
    a, b = guide(tmp_path / "a", BEFORE), guide(tmp_path / "b", AFTER, results=[], **totals)
    done = here(cli, a, b, "--out", tmp_path / "ab", code=1)
    assert f"{b}: found totals without rows" in done.stderr and "tuneyard eval defect" in done.stderr
    assert not (tmp_path / "ab").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"results": [{"expected": "x", "is_correct": 7}]}, "json result 0: correct: found 7"),
        ({"results": [7]}, "results: found 7, expected a list of objects"),
        ({"results": 7}, "results: found 7, expected a list of objects"),
        ({"results": {"rte": {}}}, "--log_samples, and name samples_*.jsonl"),
    ],
)
def test_what_the_guides_results_may_not_be(
    here: Here, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    a, b = guide(tmp_path / "a", BEFORE), guide(tmp_path / "b", AFTER, **changes)
    assert message in here(cli, a, b, "--out", tmp_path / "ab", code=1).stderr


def two_runs(folder: Path, *models: str, kinds: bool = True) -> Path:
    """A results folder of models on one dataset, with types (and so their plot) or without."""
    gold = ["yes", "no"] * 20
    for seed, model in enumerate(models):
        types = {"type": ["x", "y"] * 20} if kinds else None
        write_run(folder, model, "s", gold, answers(gold, 20 + seed, seed), kinds=types)
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A results folder of a base and an adapter."""
    return two_runs(tmp_path / "runs", "base", "a")


@pytest.mark.usefixtures("unrendered")
def test_the_same_comparison_is_replaced_with_its_plots(runs, tmp_path):
    out = tmp_path / "out"
    call(cli, runs, "--out", out)
    (out / "mine.txt").write_text("of the user", encoding="utf-8")
    assert {"type_accuracy_comparison.png", "changed.jsonl"} <= set(names(out))
    write_run(runs, "b", "s", ["yes", "no"] * 20, ["yes"] * 40)  # a model more is the same comparison, longer
    call(cli, runs, "--out", out, "--metric", "label_mass")
    assert set(names(out)) == {"table.json", "table.md", "mine.txt"}
    assert read_json(out / "table.json")["models"] == ["base", "a", "b"]


@pytest.mark.usefixtures("unrendered")
def test_another_comparison_is_replaced_by_force_alone(tmp_path: Path) -> None:
    first, second = two_runs(tmp_path / "first", "base", "a"), tmp_path / "second"
    two_runs(second, "base", "c", kinds=False)
    out = tmp_path / "out"
    call(cli, first, "--out", out)
    before = (out / "table.json").read_bytes()
    for arguments in ((second,), (first / "base",)):  # other runs, and fewer
        with raises(RequestError, "e.g", "--force"):
            call(cli, *arguments, "--out", out)
    assert (out / "table.json").read_bytes() == before
    call(cli, second, "--out", out, "--force")
    assert "table.json" in names(out) and "type_accuracy_comparison.png" not in names(out)
    assert read_json(out / "table.json")["models"] == ["base", "c"]


@pytest.mark.parametrize("name", ["table.md", "table.json", "changed.jsonl"])
@pytest.mark.parametrize("text", ["", "{}", '{"plots": 1}', "[]", "mine"])
def test_no_file_of_somebody_else_is_replaced(name, text, runs, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text(text, encoding="utf-8")
    with raises(RequestError, name):
        call(cli, runs, "--out", out, "--force")
    assert names(out) == [name] and (out / name).read_text() == text


@pytest.mark.usefixtures("unrendered")
def test_no_picture_of_somebody_else_is_replaced(runs, tmp_path):
    """Neither in a folder without a comparison nor next to one; no other plot is drawn before."""
    out = tmp_path / "out"
    out.mkdir()
    picture = out / "confusion.png"
    picture.write_bytes(b"mine")
    with raises(RequestError, "confusion.png"):
        call(cli, runs, "--out", out, "--force")
    assert names(out) == [picture.name] and picture.read_bytes() == b"mine"
    picture.unlink()
    call(cli, runs, "--out", out)
    picture.write_bytes(b"mine")
    with raises(RequestError, "confusion.png"):
        call(cli, runs, "--out", out, "--force")
    assert picture.read_bytes() == b"mine"


@pytest.mark.usefixtures("unrendered")
def test_a_comparison_that_was_interrupted_can_be_repeated(runs, tmp_path, monkeypatch):
    out = tmp_path / "out"

    def stop(*_: object) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr("tuneyard.eval.report.html.render", stop)
        with pytest.raises((KeyboardInterrupt, click.Abort)):
            call(cli, runs, "--out", out)
    call(cli, runs, "--out", out)
    assert (out / "table.json").is_file() and (out / "report.html").is_file()
