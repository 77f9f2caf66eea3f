"""Clusters and fingerprints from the compiler to the evaluation, on MNLI's own dev set."""

from pathlib import Path

import pytest

from testing.tiny import write_adapter
from tests.conftest import Run
from tests.json_files import write_json
from tests.real_data import real_path
from tuneyard.core.datasets.compiled import read_row_index
from tuneyard.core.datasets.trained_examples import fingerprints_of
from tuneyard.core.files import sha256
from tuneyard.eval.data.dataset import EvalDataset, read_datasets
from tuneyard.eval.data.training import trained_on


@pytest.fixture(scope="module")
def mnli(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MNLI's matched dev set as the bundled spec compiles it."""
    out = tmp_path_factory.mktemp("compiled")
    run(
        "-m",
        "compiler",
        "compile",
        "mnli",
        "--source",
        f"eval={real_path('mnli/dev_matched.jsonl')}",
        "--out",
        out,
    )
    return out / "mnli/alpaca_mnli-eval.json"


@pytest.fixture(scope="module")
def questions(mnli: Path) -> EvalDataset:
    (found,) = read_datasets((), (mnli,))
    return found


def test_mnli_has_3334_premises(mnli: Path, questions: EvalDataset) -> None:
    assert (len(questions.answers), questions.cluster) == (9815, "premise")
    clusters = questions.clusters or []
    assert len(set(clusters)) == 3334
    asked = [str(record["instruction"]) for record in questions.records]
    premises = [text[: text.index('" imply that "')] for text in asked]
    assert len(set(zip(premises, clusters, strict=True))) == len(set(premises)) == 3334


def test_the_fingerprints_that_compile_wrote_are_those_that_eval_asks_by(
    mnli: Path, questions: EvalDataset, tmp_path: Path
) -> None:
    beside = read_row_index(mnli)
    assert fingerprints_of(questions.conversations).tolist() == beside.fingerprints.tolist()
    adapter = write_adapter(tmp_path / "mine")
    data = {"dataset": "alpaca_mnli_eval", "file": str(mnli), "sha256": sha256(mnli)}
    settings = {"dataset": "alpaca_mnli_eval", "max_samples": 79}
    write_json(adapter / "training.json", {"inputs": {"settings": settings, "data": [data]}})
    told = trained_on([adapter], Path("none"), "other", questions.origin.fingerprints[:100])
    assert (told["examples"], told["not_checked"]) == (79, [])
