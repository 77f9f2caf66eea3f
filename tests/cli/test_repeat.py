"""--repeat N: each draw is a run with a seed of its own, and their mean and spread are what the rows give."""

from pathlib import Path
from statistics import fmean, stdev

import pytest
from click.testing import Result

from testing.tiny import write_adapter
from tests.cli import scoring
from tests.cli.scoring import predictions
from tests.fake_runs import write_run
from tests.folders import names
from tests.json_files import read_json, write_json
from tests.messages import printed, raises
from tuneyard.core.errors import RequestError
from tuneyard.eval.compare.__main__ import cli as compare
from tuneyard.eval.defect.__main__ import cli as defect
from tuneyard.eval.nli import cli as nli
from tuneyard.eval.qa.__main__ import cli as qa
from tuneyard.eval.scoring.repeats import RepeatedFigure, mean_of_datasets, repeated
from tuneyard.eval.suite import cli as suite
from tuneyard.eval.text import cli as text

QUESTIONS = [{"question": f"{n} + 1?", "answer": "yes" if n % 2 else "no"} for n in range(6)]
LABELS = [{"instruction": f"Is {n} even?", "output": "eo"[n % 2], "idx": n} for n in range(8)]


@pytest.fixture
def sampler(sampling_model) -> Path:
    return sampling_model(temperature=1.5, top_k=50)


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    path = tmp_path / "labels.json"
    write_json(path, LABELS)
    return path


def run(*words: object) -> Result:
    done = scoring.invoke(*words)
    assert done.exit_code == 0, done.output
    return done


def test_three_draws_give_the_mean_and_spread_of_three_runs_with_these_seeds(
    sampler: Path, labels: Path, tmp_path: Path
) -> None:
    """Two models. The figures are worked out from the answers of three runs of their own."""
    adapter = write_adapter(tmp_path / "far", scale=0.5, base_model_name_or_path=str(sampler))
    given = [nli, "--model", sampler, "--adapter", f"far={adapter}", "--data", labels, "--mode", "generate"]
    given += ["--preset", "document", "--parser", "substring", "--max-new-tokens", 6]
    out = tmp_path / "out"
    done = run(*given, "--repeat", 3, "--out", out)
    assert names(out) == ["draw-1", "draw-2", "draw-3", "repeats.json", "repeats.md", "run.json"]
    repeats = read_json(out / "repeats.json")
    assert repeats["seeds"] == [1, 2, 3]
    table = (out / "repeats.md").read_text()
    assert table in done.output
    for model in ("base", "far"):
        answers = []
        for seed in (1, 2, 3):
            alone = tmp_path / f"alone-{seed}"
            if not alone.exists():
                run(*given, "--seed", seed, "--out", alone)
            rows = predictions(alone / model / "labels")
            assert rows == predictions(out / f"draw-{seed}" / model / "labels")
            answers.append([row["model_output"] for row in rows])
        assert answers[0] != answers[1] != answers[2]
        shares = []
        for seed in (1, 2, 3):
            rows = predictions(tmp_path / f"alone-{seed}" / model / "labels")
            shares.append(sum(row["expected_output"] == row["predicted_output"] for row in rows) / 8)
        figure = repeats["figures"][model]["labels"]["accuracy"]
        assert figure["values"] == shares
        assert figure["value"] == pytest.approx(fmean(shares))
        assert figure["sd"] == pytest.approx(stdev(shares))
        assert (figure["n"], figure["majority"]) == (8, 0.5)
        low, high = figure["ci95"]
        assert low < figure["value"] < high
        percents = ", ".join(f"{100 * share:.1f} %" for share in shares)
        printed(table, f"{100 * fmean(shares):.1f} %", percents)
    assert any(model["labels"]["accuracy"]["sd"] > 0.01 for model in repeats["figures"].values())
    printed(table, "majority-class baseline", "50.0 %")
    following = done.stderr.splitlines()[-1]
    words = f"eval compare {out}/draw-1 --out {out}/draw-1/verdict"
    printed(following, f"next: tuneyard {words}")


def test_a_row_counts_by_its_mean_over_the_draws(tmp_path: Path) -> None:
    """Wilson's interval of 5.5 of 8, worked out by hand: (0.6267 ± 0.2709) with z = 1.96."""
    draws = ("yyyynyyy", "yyyynnyy")
    folders = [
        write_run(tmp_path / f"draw-{number}", "base", "set", "yyyynnnn", draw)
        for number, draw in enumerate(draws)
    ]
    figure = repeated(folders)["accuracy"]
    assert figure["values"] == [0.625, 0.75]
    assert figure["value"] == 0.6875
    assert figure["sd"] == pytest.approx(0.0883883, abs=1e-7)
    assert figure["ci95"] == pytest.approx([0.35576, 0.89759], abs=1e-5)


def test_rows_of_a_cluster_widen_the_interval_of_the_mean(tmp_path: Path) -> None:
    """Four premises with two rows each, which are always right or wrong together: four examples."""
    widths = []
    for groups in (None, "aabbccdd"):
        folders = [
            write_run(tmp_path / f"{groups}-{draw}", "base", "set", "yyyynnnn", "yyyynnyy", groups)
            for draw in range(2)
        ]
        low, high = repeated(folders)["accuracy"]["ci95"] or (0, 0)
        widths.append(high - low)
    assert widths[1] > 1.2 * widths[0]


def test_the_mean_of_two_datasets_is_that_of_their_means_in_each_draw() -> None:
    """The limits by hand: Zou, Huang and Zhang's, hypot(0.1, 0.2) / 2 on each side."""
    rest = {"stderr": 0.05, "sd": 0.0, "majority": 0.5}
    figures = [
        {"value": 0.6, "n": 20, "ci95": [0.5, 0.7], "values": [0.5, 0.7], **rest},
        {"value": 0.8, "n": 80, "ci95": [0.6, 1.0], "values": [0.9, 0.7], **rest},
    ]
    mean = mean_of_datasets([RepeatedFigure(**figure) for figure in figures])
    assert (mean["value"], mean["n"], mean["values"]) == (pytest.approx(0.7), 100, [0.7, 0.7])
    assert mean["ci95"] == pytest.approx([0.588197, 0.811803], abs=1e-6)
    assert (mean["sd"], mean["majority"]) == (0, None)


def test_a_killed_repetition_resumes_to_the_same_bytes_and_takes_more_draws(
    sampler: Path, tmp_path: Path
) -> None:
    data = tmp_path / "asked.json"
    write_json(data, QUESTIONS)
    given = [qa, "--model", sampler, "--data", data, "--preset", "document", "--max-new-tokens", 6]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run(*given, "--repeat", 3, "--out", whole)
    run(*given, "--repeat", 2, "--out", killed)
    log = killed / "draw-2/base/asked/predictions.jsonl"
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:2]))
    (killed / "draw-2/base/asked/results.json").unlink()
    run(*given, "--repeat", 3, "--out", killed, "--resume")
    drawn = [f"draw-{draw}/base/asked/predictions.jsonl" for draw in (1, 2, 3)]
    for name in ("repeats.json", "repeats.md", *drawn):
        assert (killed / name).read_bytes() == (whole / name).read_bytes(), name
    figures = read_json(whole / "repeats.json")["figures"]["base"]["asked"]
    assert {"accuracy", "token_f1"} <= figures.keys()
    for folder in (tmp_path, whole / "draw-other"):  # of somebody else
        folder.mkdir(exist_ok=True)
        write_json(folder / "run.json", {})
    write_json(whole / "run.json", {**read_json(whole / "run.json"), "steps": ["..", "draw-3/..", 7]})
    run(*given, "--repeat", 2, "--seed", 7, "--out", whole, "--force")
    assert names(whole) == ["draw-1", "draw-2", "draw-other", "repeats.json", "repeats.md", "run.json"]
    assert killed.is_dir()
    assert read_json(whole / "repeats.json")["seeds"] == [7, 8]


def test_answers_at_a_temperature_are_repeated_too(tiny_model: Path, tmp_path: Path) -> None:
    data = tmp_path / "asked.json"
    write_json(data, QUESTIONS)
    given = ["--model", tiny_model, "--data", data, "--temperature", 1, "--max-new-tokens", 6]
    run(qa, *given, "--repeat", 2, "--out", tmp_path / "out")
    draws = [predictions(tmp_path / f"out/draw-{draw}/base/asked") for draw in (1, 2)]
    assert [row["model_output"] for row in draws[0]] != [row["model_output"] for row in draws[1]]


@pytest.mark.parametrize(
    ("command", "options"),
    [(nli, []), (nli, ["--mode", "generate"]), (qa, []), (defect, []), (text, [])],
    ids=["labels", "greedy labels", "greedy answers", "greedy reports", "greedy texts"],
)
def test_what_is_not_sampled_is_not_repeated(tmp_path: Path, labels: Path, command, options) -> None:
    if command is defect:
        answer = {"role": "assistant", "content": "判断:主机\n\n原因：无"}
        write_json(labels, [{"subtype": "a", "text": [{"role": "user", "content": "Q"}, answer]}])
    given = ["--model", "no/such", "--data", labels, *options, "--repeat", 3, "--out", tmp_path / "out"]
    with raises(RequestError, "--repeat", "--preset document"):
        scoring.call(command, *given)
    assert not (tmp_path / "out").exists()


def test_a_model_that_samples_nothing_is_refused(tiny_model: Path, labels: Path, tmp_path: Path) -> None:
    given = ["--model", tiny_model, "--data", labels, "--mode", "generate", "--preset", "document"]
    with raises(RequestError, "--repeat", "generation_config"):
        scoring.call(nli, *given, "--repeat", 2, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_has_draws_or_one_run(sampler: Path, labels: Path, tmp_path: Path) -> None:
    given = [nli, "--model", sampler, "--data", labels, "--mode", "generate", "--preset", "document"]
    given += ["--max-new-tokens", 4, "--limit", 2]
    drawn, alone = tmp_path / "drawn", tmp_path / "alone"
    run(*given, "--repeat", 2, "--out", drawn)
    run(*given, "--out", alone)
    for mode in ("--force", "--resume"):
        with raises(RequestError, str(drawn), "--repeat"):
            scoring.call(*given, "--out", drawn, mode)
        with raises(RequestError, str(alone), "--repeat"):
            scoring.call(*given, "--repeat", 2, "--out", alone, mode)
    with raises(RequestError, str(drawn), "draw-1"):
        scoring.call(compare, drawn, "--out", tmp_path / "verdict")


def test_a_suite_repeats_no_step(sampler: Path, labels: Path, tmp_path: Path) -> None:
    steps = tmp_path / "suite.yaml"
    steps.write_text(f"one: {{command: nli, data: {labels}, mode: generate, repeat: 2}}\n")
    done = scoring.invoke(suite, steps, "--model", sampler, "--out", tmp_path / "out")
    assert isinstance(done.exception, Exception)
    printed(str(done.exception), "repeat", "eval.nli")
