"""`make demo`, for real: it learns, it leaves the user's own sets alone, and it reuses what is made."""

import pytest

from tests.integration.conftest import Demo, user_dataset
from tests.json_files import read_json, read_lines
from tuneyard.core.files import sha256

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2700)]

# Of the files that transformers' own loaders of a GGUF file (5.6) make of the base.
TOKENIZER = "6e94f90ff5d70c41bd1309f5152be34bbd9236b6ac510130d69b5d60a8fd24b0"  # mended for digits and bytes
WEIGHTS = {
    "float32": "a672150fb4f99d7c8f4168cecdd464069c0ef3a37d8113f22ddb9d48031d03cd",
    "bfloat16": "7ef915c9bf9d94d8d70211970476878352a5b95855c589ae987916d7a455242b",
}


def results(demo: Demo, model: str, dataset: str) -> dict[str, float]:
    path = demo.checkout.root / "results/demo/held-out" / model / dataset / "results.json"
    return read_json(path)


def correct(demo: Demo, model: str, dataset: str) -> list[bool]:
    """Which of the held-out examples a model has right: those that were not chosen on."""
    root = demo.checkout.root / "results/demo"
    chose = set(read_json(root / "points.json")["rows_to_choose_on"][dataset])
    rows = read_lines(root / "held-out" / model / dataset / "predictions.jsonl")
    assert len(rows) + len(chose) == 160 and 55 < len(chose) < 105
    return [row["predicted_output"] == row["expected_output"] for row in rows]


def test_the_base_is_the_one_that_transformers_reads(demo: Demo) -> None:
    base = demo.checkout.root / "models/demo-base"
    assert sha256(base / "model.safetensors") == WEIGHTS[read_json(base / "origin.json")["dtype"]]
    assert sha256(base / "tokenizer.json") == TOKENIZER


@pytest.mark.parametrize(("model", "dataset"), [("rte", "demo_rte_eval"), ("mnli", "demo_mnli_eval")])
def test_an_adapter_beats_the_base_on_its_own_dataset(demo: Demo, model: str, dataset: str) -> None:
    from scipy.stats import binomtest

    base, own = correct(demo, "base", dataset), correct(demo, model, dataset)
    assert sum(own) / len(own) > results(demo, model, dataset)["majority"] + 0.2
    won = sum(b and not a for a, b in zip(base, own, strict=True))
    lost = sum(a and not b for a, b in zip(base, own, strict=True))
    assert binomtest(won, won + lost).pvalue < 0.001


def test_the_table_is_of_the_held_out_examples(demo: Demo) -> None:
    for dataset in ("demo_rte_eval", "demo_mnli_eval"):
        for name in ("base", "rte", "mnli"):
            own = correct(demo, name, dataset)
            shown = demo.table["datasets"][dataset]["models"][name]
            assert shown["n"] == len(own) and shown["accuracy"] == pytest.approx(sum(own) / len(own))


def test_the_merge_that_is_shipped_has_the_chosen_weights(demo: Demo) -> None:
    root = demo.checkout.root
    sweep = read_json(root / "results/demo/points.json")
    card = (root / "saves/demo-merge/README.md").read_text()
    for name, weight in zip(sweep["axes"], sweep["points"][sweep["ship"]], strict=True):
        if weight:
            assert f"demo-{name}={weight:g}" in card


def test_it_ends_in_the_table_the_page_and_the_next_command(demo: Demo) -> None:
    for text in (*table_lines(demo), "results/demo/verdict/report.html", "tuneyard data init"):
        assert text in demo.said
    for name in ("verdict/report.html", "verdict/table.json", "verdict/table.md", "verdict/accuracy.png"):
        assert (demo.checkout.root / "results/demo" / name).stat().st_size > 100


def table_lines(demo: Demo) -> list[str]:
    """The lines of the table of accuracies: a header of two lines, the majority class, and four models."""
    text = (demo.checkout.root / "results/demo/verdict/table.md").read_text()
    lines = text[text.index("| accuracy") :].partition("\n\n")[0].splitlines()
    assert len(lines) == 7
    return lines


def test_it_prints_one_line_for_each_step_and_how_long_it_takes(demo: Demo) -> None:
    lines = demo.said.splitlines()
    assert len(lines) <= 80 and "From the beginning it takes 5 to 10 minutes" in demo.said
    assert [line[:5] for line in lines if line.startswith("[")] == [f"[{step}/8]" for step in range(1, 9)]


def test_the_users_own_sets_stay_as_they_were(demo: Demo) -> None:
    assert user_dataset(demo.checkout) == demo.untouched


def made_at(demo: Demo) -> dict[str, int]:
    """When each file was written that takes more than a moment: base, adapters, predictions."""
    root = demo.checkout.root
    files = [root / "models/demo-base/model.safetensors", *root.glob("results/demo/**/predictions.jsonl")]
    files += [root / f"saves/demo-{name}/adapter_model.safetensors" for name in ("rte", "mnli")]
    return {str(file): file.stat().st_mtime_ns for file in files}


def test_a_second_demo_reuses_everything(demo: Demo) -> None:
    """So it ends in under a minute, if nothing else runs beside it."""
    before = made_at(demo)
    said = demo.checkout.shell("make demo")
    assert made_at(demo) == before and len(before) == 3 + 5 * 2 + 4 * 2
    for line in table_lines(demo):
        assert line in said
