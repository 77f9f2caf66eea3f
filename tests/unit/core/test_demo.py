"""`tuneyard demo`: which commands it runs, and whose files it leaves alone.

The steps only write their files here; tests/integration/test_demo.py runs them for real.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.cli.scoring import invoke
from tests.messages import raises
from tuneyard import demo
from tuneyard.cli import cli as tuneyard
from tuneyard.core.errors import ContentError, RequestError, TuneyardError
from tuneyard.core.files import HeldError, reserved

Calls = list[list[str]]
Demo = Callable[..., Calls]
FLAT_TOP = {"best": "rte=1,mnli=1", "not_shown_worse": ["base"], "comparisons": [{}, {}]}


def write_result(words: Sequence[str]) -> None:
    """Write what a step's command leaves behind."""
    base = json.dumps({"dtype": "bfloat16"})
    table = "采用 rte。\n\n| 模型 |\n\n| 准确率 | 平均，n = 8 |\n| --- | --- |\n| base | 41% |\n\n| x |\n"
    accuracy = json.dumps({"accuracy": 0.5})
    files = {
        "recipe base": {"models/demo-base/origin.json": "{}", "models/demo-base/config.json": base},
        "data compile": {f"dataset_info/{words[2]}/manifest.json": "{}"},
        "recipe train": {f"saves/{Path(words[2]).stem}/training.json": "{}"},
        "eval sweep": {
            "results/demo/base/demo_rte_eval/results.json": accuracy,
            "results/demo/base/demo_mnli_eval/results.json": accuracy,
            "results/demo/base/demo_mnli_eval/predictions.jsonl": "{}",
            "results/demo/merge.yaml": "adapters: [saves/demo-rte=1]\n",
            "results/demo/points.json": json.dumps({"points": {"base": [0, 0]}, "flat_top": FLAT_TOP}),
        },
        "adapter merge": {"saves/demo-merge/adapter_config.json": "{}"},
        "eval compare": {
            "results/demo/verdict/table.md": table,
            "results/demo/verdict/table.json": "{}",
        },
    }
    for name, text in files[" ".join(words[:2])].items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text)


@pytest.fixture
def run_demo(working_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Demo:
    """Run the demo in an empty folder; the result is the commands that it started."""
    monkeypatch.setattr(demo, "need", lambda *_modules: None)

    def run(*options: str, fails_at: str = "", refuses: str = "") -> Calls:
        calls: Calls = []

        def execute(words: Sequence[str], _title: str) -> None:
            calls.append(list(words))
            if fails_at and fails_at in " ".join(words):
                raise ContentError("killed")
            if refuses and refuses in words:
                raise demo.RefusedStepError("changed")
            demo.LOG.touch()
            write_result(words)

        monkeypatch.setattr(demo, "_execute", execute)
        ended = invoke(tuneyard, "demo", *options)
        if isinstance(ended.exception, TuneyardError):
            if not fails_at:
                raise ended.exception
        else:
            assert ended.exit_code == 0, ended.output
            assert "| base | 41% |\n\n采用 rte。" in ended.output and "5 to 10 minutes" in ended.output
            assert "results/demo/verdict/report.html" in ended.output
            assert len(ended.output.splitlines()) < 80
        return calls

    return run


def names(calls: Calls) -> list[str]:
    return [" ".join(words[:2]) for words in calls]


STEPS = [
    "recipe base", "data compile", "data compile", "recipe train", "recipe train", "eval sweep",
    "adapter merge", "eval compare",
]  # fmt: skip


@pytest.fixture(autouse=True)
def cpu(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file with the flags of a CPU without AMX."""
    file = tmp_path_factory.mktemp("cpu") / "cpuinfo"
    file.write_text("flags : fpu avx512f avx512_bf16\n")
    monkeypatch.setattr(demo, "CPU_INFO", file)
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    return file


@pytest.mark.parametrize(
    ("most", "dtype"),
    [("", ["--dtype", "bf16"]), ("AVX512_CORE_AMX", ["--dtype", "bf16"]), ("AVX512_CORE_BF16", [])],
)
def test_a_cpu_with_amx_scores_in_bf16(
    run_demo: Demo, cpu: Path, monkeypatch: pytest.MonkeyPatch, most: str, dtype: list[str]
) -> None:
    cpu.write_text("flags : fpu avx512_bf16 amx_bf16 amx_tile\n")
    if most:
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", most)
    assert run_demo()[5][-2:] == (dtype or ["--out", "results/demo"])


def test_every_step_runs_in_every_demo(run_demo: Demo) -> None:
    first = run_demo()
    assert names(first) == STEPS
    assert first[5][-6:] == ["--grid", "0.5,1", "--limit", "160", "--out", "results/demo"]
    second = run_demo()
    assert second[5] == [*first[5], "--resume"]
    del first[5], second[5]
    assert second == first


def test_the_merge_of_an_earlier_sweep_is_not_named(run_demo: Demo) -> None:
    run_demo()
    assert "demo-merge" in demo.result_lines(Path())[-1]
    demo.WEIGHTS.unlink()
    assert "demo-merge" not in demo.result_lines(Path())[-1]


def test_a_sweep_that_cannot_be_resumed_starts_anew(run_demo: Demo) -> None:
    run_demo()
    calls = run_demo(refuses="--resume")
    assert names(calls) == [*STEPS[:6], *STEPS[5:]]
    assert calls[5][-1] == "--resume" and calls[6][-1] == "--force"


def test_a_failing_sweep_keeps_its_results(run_demo: Demo) -> None:
    run_demo()
    assert names(run_demo(fails_at="eval sweep")) == STEPS[:6]


def test_another_model_is_trained_and_scored_without_the_bundled_one(run_demo: Demo, tmp_path: Path) -> None:
    run_demo()
    model = tmp_path / "mine"
    model.mkdir()
    (model / "config.json").write_text("{}")
    calls = run_demo("--model", "mine")
    assert names(calls) == STEPS[1:]
    assert f"model_name_or_path={model}" in calls[2] and "--dtype" not in calls[4]


@pytest.mark.parametrize("folder", ["results/demo", "saves/demo-merge"])
def test_a_folder_of_the_user_stays(run_demo: Demo, tmp_path: Path, folder: str) -> None:
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / folder / "mine.txt").write_text("mine")
    with raises(RequestError, folder, "--out"):
        run_demo()
    assert (tmp_path / folder / "mine.txt").read_text() == "mine"
    assert not (tmp_path / "models").exists()
    assert len(run_demo("--out", "elsewhere")) == 8


def test_a_folder_that_cannot_be_made_is_named_with_the_one_of_out(run_demo: Demo, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/results").write_text("a file")
    ended = invoke(tuneyard, "demo", "--out", "mine")
    assert isinstance(ended.exception, OSError)
    assert ended.exception.filename == "mine/results/demo-steps"


def test_a_dry_run_lists_the_steps_and_makes_nothing(tmp_path: Path) -> None:
    listed = invoke(tuneyard, "demo", "--out", "new", "--dry-run").stdout.splitlines()
    assert len(listed) == 8 and not any(tmp_path.iterdir())


def test_two_demos_do_not_run_in_one_folder(run_demo: Demo) -> None:
    with reserved(demo.NOTES), raises(HeldError, "another command"):
        run_demo()


def test_the_log_and_its_last_lines_are_shown_if_a_step_fails(working_folder: Path) -> None:
    demo.NOTES.mkdir(parents=True)
    with raises(demo.RefusedStepError, str(demo.LOG.resolve()), 2, "absent_name"):
        demo._execute(["data", "compile", "absent_name"], "")
    assert "$ tuneyard data compile absent_name" in demo.LOG.read_text()
