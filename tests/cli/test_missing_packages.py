"""What a run needs at its end is imported, or refused, before it writes anything."""

import sys
from pathlib import Path

import pytest

from testing.tiny import write_adapter
from tests.cli.scoring import PAIRS, call
from tests.json_files import read_json, write_json, write_lines
from tests.plug_ins import installing
from tuneyard.core.errors import RequestError
from tuneyard.core.plugins import PluginError
from tuneyard.eval.defect.__main__ import cli as defect
from tuneyard.eval.figures import GROUP, metrics
from tuneyard.eval.nli import cli as nli
from tuneyard.eval.suite import cli as suite
from tuneyard.eval.sweep.__main__ import cli as sweep
from tuneyard.eval.text import cli as text

NO_SERVER = ["--backend", "openai", "--url", "http://127.0.0.1:9/v1"]  # nothing may be sent to it

pytestmark = pytest.mark.usefixtures("one_thread", "unrendered")


@pytest.fixture
def hide(monkeypatch):
    """`hide("nltk")`: importing it fails as if it were not installed."""
    return lambda module: monkeypatch.setitem(sys.modules, module, None)


@pytest.mark.parametrize("module", ["rouge_score.rouge_scorer", "sacrebleu.metrics"])
def test_rouge_and_bleu_without_their_packages_are_not_measured(module, hide, score, data, refused):
    hide(module)
    with refused(RequestError, module.partition(".")[0], "make setup"):
        score(text, "--data", data, "--rouge")


def test_a_sweep_without_matplotlib_scores_no_point(hide, score, data, tmp_path, refused):
    hide("matplotlib.figure")
    with refused(RequestError, "matplotlib"):
        score(sweep, "--data", data, "--adapter", f"one={write_adapter(tmp_path / 'one')}")


def test_reports_without_matplotlib_are_not_judged(hide, tmp_path: Path, refused):
    record = {
        "subtype": "断线",
        "messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "判断:网络"}],
    }
    write_lines(tmp_path / "reports.jsonl", [record])
    hide("matplotlib.figure")
    words = ["--model", "m", "--data", tmp_path / "reports.jsonl", "--out", tmp_path / "out", *NO_SERVER]
    with refused(RequestError, "matplotlib"):
        call(defect, *words)


def test_a_suite_without_matplotlib_runs_no_step(hide, data, tmp_path: Path, refused):
    (tmp_path / "suite.yaml").write_text("rte: {command: nli, data: tiny.json}\n")
    hide("matplotlib.figure")
    with refused(RequestError, "matplotlib"):
        call(suite, tmp_path / "suite.yaml", "--model", "m", "--out", tmp_path / "out", *NO_SERVER)


def test_figures_of_labels_need_no_scikit_learn(hide, score, data, tmp_path: Path):
    hide("sklearn")
    out = score(nli, "--data", data, "--mode", "generate", "--max-new-tokens", 2)
    call(nli, "--rescore", out, "--data", data, "--out", tmp_path / "again")
    classes = read_json(tmp_path / "again/base/tiny/results.json")["classes"]
    assert {label: scores["support"] for label, scores in classes.items()} == {"maybe": 1, "no": 2, "yes": 2}
    write_json(tmp_path / "more.json", PAIRS * 2)
    adapter = f"one={write_adapter(tmp_path / 'one')}"
    swept = score(sweep, "--data", tmp_path / "more.json", "--adapter", adapter, "--grid", "0,1", out="swept")
    assert (swept / "points.json").is_file()


def test_a_plug_in_that_cannot_be_imported_is_refused_before_anything_is_scored(
    hide, score, data, tmp_path, refused, monkeypatch
):
    with installing(tmp_path / "site", GROUP, monkeypatch, metrics) as install:
        install("words", "import sacrebleu.metrics\nfrom tuneyard.eval.figures import metric\n")
        hide("sacrebleu.metrics")
        with refused(PluginError, "plug_words 1.2", "sacrebleu.metrics"):
            score(nli, "--data", data)
