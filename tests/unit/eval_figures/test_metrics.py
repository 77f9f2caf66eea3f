"""Metrics of examples: a file of the folder, the example of docs/extending.md, and plug-ins that go wrong."""

import math

import pytest

from tests.cli.scoring import call
from tests.fake_runs import write_run
from tests.json_files import read_json, read_lines, write_json, write_lines
from tests.messages import printed_line, raises
from tests.plug_ins import documented, installing
from tests.tables import table_with
from tuneyard.core.errors import RequestError
from tuneyard.core.plugins import PluginError
from tuneyard.core.training.metrics import UNKNOWN, metric_of
from tuneyard.eval import figures as metrics
from tuneyard.eval.compare.__main__ import cli as compare
from tuneyard.eval.sweep.__main__ import Sweep, judge, read_points, write
from tuneyard.eval.sweep.points import Axes

LENGTHS = {"base": "a long answer", "one": "short"}


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install packages with one metric each."""
    site = tmp_path / "site"
    monkeypatch.setenv("PYTHONPATH", str(site))  # of the commands that a command runs
    with installing(site, metrics.GROUP, monkeypatch, metrics.metrics) as lay:
        yield lay


def example():
    """Under another name, so that the documented file can also be in eval/figures/."""
    return documented("@metric(").replace("answer_length", "plugged_length")


def runs(folder, outputs=LENGTHS):
    """Scored models whose results.json holds what `measure` finds in their predictions."""
    for model, said in outputs.items():
        write_run(folder, model, "s", ["yes", "no"] * 4, ["yes", "no"] * 4, majority=0.5)
        place = folder / model / "s"
        rows = [{**row, "model_output": said} for row in read_lines(place / "predictions.jsonl")]
        write_lines(place / "predictions.jsonl", rows)
        facts = read_json(place / "results.json")
        write_json(place / "results.json", {**facts, "metrics": metrics.measure(rows)[0]})


@pytest.mark.usefixtures("unrendered")
def test_a_metric_of_a_package_is_in_results_tables_page_sweep_and_best(install, tmp_path, capsys):
    install("plugged_length", example())
    folder = tmp_path / "runs"
    runs(folder)
    found = read_json(folder / "one/s/results.json")["metrics"]["plugged_length"]
    assert found == {
        "value": 5.0, "n": 8, "stderr": 0.0, "ci95": [5.0, 5.0],
        "unit": "characters", "higher_is_better": False,
    }  # fmt: skip
    call(compare, folder, "--out", tmp_path / "compared")
    table = table_with((tmp_path / "compared/table.md").read_text(), "plugged_length")
    assert table.cell("one", "plugged_length") == "5 (5 to 5), n = 8"
    told = read_json(tmp_path / "compared/table.json")
    assert told["datasets"]["s"]["models"]["one"]["metrics"]["plugged_length"]["value"] == 5.0
    page = (tmp_path / "compared/report.html").read_text().replace("<wbr>", "")
    assert "plugged_length on s (characters, lower is better)" in page
    halves = {"s": ([*range(4)], [*range(4, 8)])}
    sweep = Sweep(folder, Axes("base", ["w"], {"base": (0.0,), "one": (1.0,)}, {}), halves, "plugged_length")
    write(sweep, judge(sweep, read_points(sweep), read_points(sweep)))
    swept = read_json(folder / "points.json")
    assert (swept["ship"], swept["metric"]) == (
        "one",
        "plugged_length",
    )  # accuracy alone would take the first
    runs(tmp_path / "steps", {"base": "a long answer", "checkpoint-1": "longer", "checkpoint-2": "short"})
    capsys.readouterr()
    out = tmp_path / "best"
    call(compare, tmp_path / "steps", "--choose-on", "half", "--metric", "plugged_length", "--out", out)
    (choice,) = read_json(out / "table.json")["choice"]
    assert choice["model"] == "checkpoint-2"


@pytest.mark.parametrize(
    ("unit", "body", "said"),
    [
        ("points", "return 1 / 0", "ZeroDivisionError: division by zero"),
        ("points", "return None", "TypeError: "),
        ("points", "return float('nan')", "ValueError: bad: found nan, expected a finite number"),
        ("share", "return 2", "ValueError: bad: found 2.0, expected a share from 0 to 1"),
        ("points", "return len(prediction.pop('model_output'))", "AttributeError: 'mappingproxy'"),
    ],
)
def test_a_metric_that_fails_is_named_with_its_package_and_takes_no_other_with_it(install, unit, body, said):
    head = f"from tuneyard.eval.figures import metric\n@metric('bad', unit={unit!r}, higher=True, needs=())\n"
    install("bad", f"{head}def bad(prediction):\n    {body}\n")
    install("plugged_length", example())
    figures, (error,) = metrics.measure([{"model_output": "abc"}])
    assert "bad" not in figures and figures["plugged_length"]["ci95"] is None
    printed_line(str(error), "'bad'", "plug_bad 1.2", "tuneyard.metrics", said)


@pytest.mark.parametrize(
    ("declared", "facts"),
    [
        ("'bad', unit='points', higher=True, needs='model_output'", "needs: found the text 'model_output'"),
        ("'a | b\\n', unit='points', higher=True, needs=()", "found the name 'a | b"),
        ("'brier', unit='points', higher=True, needs=()", "'brier'; taken"),
        ("'loss', unit='points', higher=True, needs=()", "'loss'; taken"),
    ],
)
def test_a_metric_that_is_declared_wrongly_is_an_error_with_its_package(install, declared, facts):
    install("bad", f"from tuneyard.eval.figures import metric\n@metric({declared})\ndef bad(_): return 1\n")
    with raises(PluginError, "plug_bad 1.2", facts):
        metrics.metrics()


def test_brier_of_labels_that_the_model_would_never_say():
    row = {"choices": {"yes": -900.0, "no": -900.0 - math.log(3)}, "expected_output": "yes"}
    assert metrics.metrics()["brier"].values([row]) == pytest.approx([2 * 0.25**2])


def test_brier_equals_scikit_learns():
    from sklearn.metrics import brier_score_loss

    shares = [[0.7, 0.2, 0.1], [0.25, 0.25, 0.5], [0.1, 0.8, 0.1]]
    labels, gold = ["maybe", "no", "yes"], ["maybe", "no", "no"]
    rows = [
        {"expected_output": g, "choices": {x: math.log(p / 3) for x, p in zip(labels, own, strict=True)}}
        for g, own in zip(gold, shares, strict=True)
    ]
    expected = brier_score_loss(gold, shares, labels=labels, scale_by_half=False)
    assert metrics.measure(rows)[0]["brier"]["value"] == pytest.approx(expected, abs=1e-12)


def test_rows_without_the_fields_and_refused_ones_are_left_out_and_the_interval_is_by_cluster():
    choices = {"yes": 0.0, "no": -math.inf}
    rows = [
        {"expected_output": gold, "choices": choices, "cluster": cluster}
        for gold, cluster in (("yes", "a"), ("yes", "a"), ("no", "b"), ("no", "b"))
    ]
    figures, _ = metrics.measure([*rows, {"expected_output": "yes"}, {**rows[0], "too_long": "too long"}])
    found = figures["brier"]
    assert (found["value"], found["n"]) == (1.0, 4)
    assert found["stderr"] == pytest.approx(1.0)  # two clusters: 0 and 2, standard deviation √2, over √2
    assert metrics.measure([{"expected_output": "yes"}]) == ({}, [])


def test_unknown_metrics_and_rows_without_their_fields_are_refused(tmp_path):
    with raises(RequestError, "nope", "--metric"):
        metrics.check_metric("nope")
    write_run(tmp_path, "base", "s", ["yes", "no"], ["yes", "no"], majority=0.5)
    rows = read_lines(tmp_path / "base/s/predictions.jsonl")
    kept = [{key: value for key, value in row.items() if key != "choices"} for row in rows]
    write_lines(tmp_path / "base/s/predictions.jsonl", kept)
    sweep = Sweep(tmp_path, Axes("base", ["w"], {"base": (0.0,)}, {}), {"s": ([0], [1])}, "brier")
    with raises(RequestError, "s", "brier"):
        judge(sweep, read_points(sweep), read_points(sweep))


OF_LONGEST = """
from tuneyard.eval.figures import metric_over_rows

@metric_over_rows("of_longest", unit="share", higher=True, needs=["model_output"])
def of_longest(rows):
    lengths = [len(row["model_output"]) for row in rows]
    return [length / max(lengths) for length in lengths]
"""


@pytest.mark.usefixtures("unrendered")
def test_a_figure_over_all_rows_of_a_package_is_in_results_and_compared(install, tmp_path):
    install("of_longest", OF_LONGEST)
    answers = [{"model_output": text, "row": row} for row, text in enumerate(["abcd", "ab", "abc", "abc"])]
    refused = {"model_output": "abcdefgh", "row": 4, "refused": "no"}
    assert metrics.measure([*answers, refused])[0]["of_longest"]["value"] == pytest.approx(0.75)
    folder = tmp_path / "runs"
    runs(folder)
    call(compare, folder, "--metric", "of_longest", "--out", tmp_path / "compared")
    (section,) = read_json(tmp_path / "compared/table.json")["datasets"].values()
    assert section["models"]["one"]["value"] == 1  # as long as the longest, which is equal in every row


def test_built_in_figures_are_declared_as_plug_ins_are_and_mean_what_the_core_says():
    """`recipe sweep --metric NAME` reads results.json by the core's table of names."""
    built_in = metrics.metrics()
    assert {
        *("accuracy", "macro_f1", "exact_match", "partial_match", "token_f1", "eval_loss", "auc", "bleu"),
        *("rouge1", "rouge2", "rougeL", "brier", "label_mass"),
    } <= built_in.keys()
    for name, figure in built_in.items():
        assert figure.name == name
        if metric_of(name) is not UNKNOWN:
            assert (figure.meaning, figure.meaning.in_percent) == (
                metric_of(name),
                metric_of(name).in_percent,
            )


def test_figures_of_rows_and_of_all_rows_by_hand():
    """Loss by its tokens, not by its rows; ROUGE and BLEU without thoughts; macro-F1 of two labels."""
    losses = [{"loss": 6.0, "tokens": 3}, {"loss": 1.0, "tokens": 1}]
    loss = metrics.metrics()["eval_loss"]
    assert (loss.values(losses), loss.mean(losses).value) == ([2.0, 1.0], 7 / 4)
    texts = [{"reference": "the cat sat", "prediction": "<think>no</think>the cat ran"}] * 2
    assert metrics.metrics()["rouge1"].mean(texts).value == pytest.approx(2 / 3)
    assert metrics.metrics()["rouge2"].mean(texts).value == pytest.approx(1 / 2)
    same = [{"reference": "one two three four five", "prediction": "one two three four five"}] * 2
    assert metrics.metrics()["bleu"].mean(same).value == pytest.approx(100)
    answers = [
        {"expected_output": expected, "predicted_output": predicted}
        for expected, predicted in ("aa", "aa", "ab", "bb", "b?")
    ]
    f1 = metrics.metrics()["macro_f1"].mean(answers)
    assert f1.value == pytest.approx((2 * 2 / (3 + 2) + 2 * 1 / (2 + 2)) / 2)
    assert f1.low < f1.value < f1.high
    assert metrics.metrics()["accuracy"].mean(answers).value == 3 / 5
    assert metrics.metrics()["accuracy"].values([{**answers[4], "correct": True}]) == [1.0]
