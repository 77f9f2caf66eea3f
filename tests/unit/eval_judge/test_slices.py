"""Slices: one family over slices and models, counts by hand, what cannot be parted."""

from dataclasses import replace

import numpy as np

from tests.cli.scoring import invoke
from tests.fake_runs import VALID, by_dataset, fake_run, write_run
from tests.json_files import read_json
from tests.messages import printed, raises
from tuneyard.core.errors import RequestError
from tuneyard.eval.compare.__main__ import cli
from tuneyard.eval.judge.questions.slices import compare_slices
from tuneyard.eval.statistics.family import estimates, sliced, units_of


def run(model, correct, kinds):
    return replace(fake_run(model, correct), records=[{"kind": kind} for kind in kinds])


def test_counts_and_accuracies_by_hand():
    kinds = ["a", "a", "b", "b", "b"]
    base = run("base", [True, False, False, False, True], kinds)
    mine = run("mine", [True, True, True, False, False], kinds)
    b, a = compare_slices(by_dataset([base, mine]), "base", "kind")
    assert (a.value, a.n, a.accuracy) == ("a", 2, {"base": 0.5, "mine": 1.0})
    assert (b.value, b.n) == ("b", 3)
    assert [(t.value, t.better, t.worse, t.n) for t in (*a.tests, *b.tests)] == [
        (0.5, 1, 0, 2),
        (0.0, 1, 1, 3),
    ]


def test_one_slice_is_the_plain_family():
    draw = np.random.default_rng(1)
    steps = draw.integers(-1, 2, size=(80, 2)).astype(float)
    groups = [i // 2 for i in range(80)]
    assert sliced(steps, ["all"] * 80, groups)["all"] == estimates(units_of([steps], [groups]))


def test_nothing_but_chance_is_found_in_few_families():
    """Of 8 slices of equal models, some slice is significant in about 5 of 100 datasets, not in 30."""
    draw, found = np.random.default_rng(3), 0
    for _ in range(200):
        steps = draw.choice([-1.0, 0.0, 1.0], p=[0.2, 0.6, 0.2], size=(160, 1))
        found += (
            min(one.p for (one,) in sliced(steps, [str(i % 8) for i in range(160)], None).values()) < 0.05
        )
    assert found <= 18


def test_a_field_that_cannot_part_the_rows_is_refused():
    with raises(RequestError, "--by colour"):
        compare_slices(by_dataset([run("base", [True], ["a"])]), "base", "colour")
    many = [str(i) for i in range(21)]
    runs = [run(model, [True] * 21, many) for model in ("base", "mine")]
    with raises(RequestError, "21 values", "20"):
        compare_slices(by_dataset(runs), "base", "kind")


def test_the_command_reads_any_field_and_writes_what_its_schema_says(tmp_path):
    for model, said in (("base", "yes"), ("mine", "no")):
        source = {"source": ["a", "b"] * 12}
        write_run(tmp_path / "runs", model, "s", ["yes", "no"] * 12, ["yes", said] * 12, kinds=source)
    out = tmp_path / "t"
    done = invoke(cli, tmp_path / "runs", "--by", "source", "--out", out)
    assert done.exit_code == 0, done.output
    table = read_json(out / "table.json")
    assert VALID(table)
    assert [(one["value"], one["tests"][0]["better"]) for one in table["slices"]] == [("a", 0), ("b", 12)]
    text = (out / "table.md").read_text(encoding="utf-8")
    assert "## By source" in text and "b of s, n = 12" in text
    wrong = invoke(cli, tmp_path / "runs", "--by", "sourc", "--out", out).exception
    printed(str(wrong), "--by sourc: ", 'did you mean "source"?', "expected_output", "predicted_output")
    assert "row" not in str(wrong).split(": ")[-1].split(", ")  # 24 values are no groups
