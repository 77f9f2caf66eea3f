"""`make demo`, for real: it learns, it leaves the user's own sets alone, and it reuses what is made."""

import json
import time

import pytest

from tests.integration.conftest import Demo, entry

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def results(demo: Demo, model: str, dataset: str) -> dict[str, float]:
    path = demo.checkout.root / "results/demo" / model / dataset / "results.json"
    return json.loads(path.read_text())


@pytest.mark.parametrize(("model", "dataset"), [("rte", "demo_rte_eval"), ("mnli", "demo_mnli_eval")])
def test_a_tuned_model_beats_base_and_majority_on_its_own_set(demo: Demo, model: str, dataset: str) -> None:
    from scipy.stats import binomtest

    own = results(demo, model, dataset)
    assert own["n"] == 300
    assert own["accuracy"] > own["majority"] + 0.2
    right = {
        name: [row["predicted_output"] == row["expected_output"] for row in predictions(demo, name, dataset)]
        for name in ("base", model)
    }
    won = sum(b and not a for a, b in zip(right["base"], right[model], strict=True))
    lost = sum(a and not b for a, b in zip(right["base"], right[model], strict=True))
    assert binomtest(won, won + lost).pvalue < 0.001


def predictions(demo: Demo, model: str, dataset: str) -> list[dict[str, str]]:
    path = demo.checkout.root / "results/demo" / model / dataset / "predictions.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_merge_is_scored_as_well(demo: Demo) -> None:
    for dataset in ("demo_rte_eval", "demo_mnli_eval"):
        assert results(demo, "merge", dataset)["n"] == 300


def test_the_table_names_every_model_and_set(demo: Demo) -> None:
    for name in ("base", "rte", "mnli", "merge", "demo_rte_eval", "demo_mnli_eval"):
        assert name in demo.said
    for name in ("table.json", "table.md", "accuracy.png"):
        assert (demo.checkout.root / "results/demo" / name).stat().st_size > 100


def test_the_users_own_sets_stay_as_they_were(demo: Demo) -> None:
    folder = demo.checkout.root / "dataset_info" / "rte"
    now = {path.name: path.read_bytes() for path in folder.iterdir()} | {"entry": entry(demo.checkout)}
    assert now == demo.untouched


def test_a_second_demo_reuses_everything(demo: Demo) -> None:
    before = time.monotonic()
    said = demo.checkout.shell("make demo")
    assert time.monotonic() - before < 60
    assert "compile" not in said
    assert (demo.checkout.root / "results/demo/table.md").read_text() in said
