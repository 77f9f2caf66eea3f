"""--repeats: sampled answers are generated several times, and their mean, spread and interval are told."""

import json
from pathlib import Path
from statistics import fmean, stdev

import jsonschema
import pytest

from tests.cli.scoring import call, predictions, results
from tests.conftest import ROOT
from tests.messages import raises
from tests.runs_cut import tree
from tuneyard.core.errors import RequestError
from tuneyard.eval import ab, compare, nli, qa, suite, text

REFERENCE = "yes no maybe a man dog is walking only one word explanation entailment user system assistant"
ROWS = [{"instruction": f"Say {n}.", "output": f"{n % 2} {REFERENCE}"} for n in range(6)]


@pytest.fixture
def asked(tmp_path: Path) -> Path:
    path = tmp_path / "asked.json"
    path.write_text(json.dumps(ROWS))
    return path


@pytest.fixture
def model(sampling_model) -> Path:
    return sampling_model(temperature=0.9, top_k=20)


@pytest.fixture
def given(model: Path, asked: Path) -> list[object]:
    return ["--model", model, "--data", asked, "--preset", "document", "--max-new-tokens", 12]


def test_each_repeat_has_other_answers_and_the_first_is_that_of_a_single_run(given, tmp_path, capsys) -> None:
    call(text.cli, *given, "--rouge", "--repeats", 3, "--out", tmp_path / "out")
    shown = capsys.readouterr().out
    call(text.cli, *given, "--rouge", "--out", tmp_path / "once")
    first = tmp_path / "out/base/asked"
    folders = [first, first / "repeats/2", first / "repeats/3"]
    assert len({json.dumps(rows) for rows in map(answers, folders)}) == 3
    assert answers(first) == answers(tmp_path / "once/base/asked")
    found = results(first)
    assert [results(folder).get("repeat") for folder in folders] == [None, 2, 3]
    values = [results(folder)["rouge1"] for folder in folders]
    one = found["repeats"]["figures"]["rouge1"]
    assert found["repeats"]["n"] == 3 and one["values"] == values
    assert one["mean"] == pytest.approx(fmean(values)) and one["sd"] == pytest.approx(stdev(values))
    assert one["ci95"][0] < one["mean"] < one["ci95"][1]
    assert found["repeats"]["figures"]["eval_loss"]["sd"] == pytest.approx(0, abs=1e-6)
    assert "3 repeats: rouge1 mean" in shown
    bleu = found["repeats"]["figures"]["bleu"]
    assert 0 <= bleu["ci95"][0] <= bleu["mean"] <= bleu["ci95"][1] <= 100
    assert found["repeats"]["figures"]["eval_loss"]["ci95"] == found["estimates"]["eval_loss"]["ci95"]
    call(compare.cli, tmp_path / "out", "--metric", "rouge1", "--out", tmp_path / "verdict")
    assert "Repeated generation" in capsys.readouterr().out


def answers(folder: Path) -> list[str]:
    return [row["prediction"] for row in predictions(folder)]


def test_a_run_with_repeats_resumes_and_is_scored_again_and_compared(given, tmp_path, capsys) -> None:
    out = tmp_path / "out"
    call(qa.cli, *given, "--repeats", 2, "--out", out)
    whole = tree(out)
    for name in ("results.json", "repeats/2/results.json"):
        (out / "base/asked" / name).unlink()
    log = out / "base/asked/repeats/2/predictions.jsonl"
    log.write_bytes(log.read_bytes()[:-40])
    call(qa.cli, *given, "--repeats", 2, "--out", out, "--resume")
    assert tree(out) == whole
    with raises(RequestError, "repeats", "2", "3"):
        call(qa.cli, *given, "--repeats", 3, "--out", out, "--resume")
    call(qa.cli, "--rescore", out, "--data", tmp_path / "asked.json", "--out", tmp_path / "again")
    again = results(tmp_path / "again/base/asked")
    assert again["repeats"] == results(out / "base/asked")["repeats"]
    capsys.readouterr()
    for place in (out, out / "base", out / "base/asked"):
        call(compare.cli, place, "--out", tmp_path / "verdict")
        assert "Repeated generation" in capsys.readouterr().out
    call(qa.cli, *given, "--out", out, "--force")
    assert not (out / "base/asked/repeats").exists()


def test_results_keep_to_their_schema_and_labels_are_parsed_in_each_repeat(given, tmp_path) -> None:
    out = tmp_path / "out"
    call(nli.cli, *given, "--mode", "generate", "--repeats", 2, "--limit", 3, "--out", out)
    schema = json.loads((ROOT / "core/schemas/results.schema.json").read_text())
    for folder in (out / "base/asked", out / "base/asked/repeats/2"):
        jsonschema.validate(results(folder), schema)
    assert list(results(out / "base/asked")["repeats"]["figures"]) == ["accuracy"]


def test_a_suites_table_has_the_mean_of_the_repeats(model, asked, tmp_path) -> None:
    steps = tmp_path / "suite.yaml"
    steps.write_text(
        "texts: {command: text, data: asked.json, preset: document, repeats: 2, rouge: true, limit: 3, "
        "max-new-tokens: 12}"
    )
    call(suite.cli, steps, "--model", model, "--out", tmp_path / "out")
    shown = json.loads((tmp_path / "out/table.json").read_text())["steps"]["texts"]["rouge1"]["base"]
    one = results(tmp_path / "out/texts/base/asked")["repeats"]["figures"]["rouge1"]
    assert (shown["value"], list(shown["ci95"])) == (one["mean"], one["ci95"])


@pytest.mark.parametrize("mode", [[], ["--mode", "generate"]])
def test_where_nothing_is_sampled_it_is_refused(model, asked, tmp_path, mode) -> None:
    arguments = ["--model", model, "--data", asked, "--repeats", 2, "--out", tmp_path / "out", *mode]
    with raises(RequestError, "--repeats", "--preset"):
        call(nli.cli, *arguments)
    assert not (tmp_path / "out").exists()


def test_a_model_that_does_not_sample_is_refused(tiny_model, asked, tmp_path) -> None:
    arguments = ["--model", tiny_model, "--data", asked, "--preset", "document", "--repeats", 2]
    with raises(RequestError, "generation_config"):
        call(qa.cli, *arguments, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_sheet_for_raters_has_no_repeats() -> None:
    assert "--repeats" not in {name for option in ab.ask.params for name in option.opts}
