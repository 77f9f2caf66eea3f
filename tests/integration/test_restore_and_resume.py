"""Recompile, change one's mind, restore, resume: the training goes on to the bytes of an unbroken one."""

import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from testing.forks import Forks
from tests.json_files import write_lines
from tests.processes import is_free, wait_until, written
from tests.unit.compiler.conftest import ROWS

pytestmark = pytest.mark.slow


def compile_rows(forks: Forks, source: Path, data: Path, count: int) -> None:
    rows = [ROWS[0] | {"idx": number, "sentence1": f"Row {number}."} for number in range(count)]
    write_lines(source, rows)
    forks.run("compiler", "compile", "rte", "--source", f"train={source}", "--out", data)


def test_a_killed_training_resumes_once_its_rows_are_restored(
    sft_recipe: Path, train: Callable[..., str], forks: Forks, tmp_path: Path
) -> None:
    data, source = tmp_path / "data", tmp_path / "train.jsonl"
    words = ("dataset=alpaca_rte_train", f"dataset_dir={data}")
    compile_rows(forks, source, data, 24)
    train(sft_recipe, *words, f"output_dir={tmp_path / 'whole'}")
    broken = tmp_path / "broken"
    process = forks.start("recipes", "train", sft_recipe, *words, f"output_dir={broken}")
    written(broken / "checkpoint-4" / "trainer_state.json", process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_until(lambda: is_free(broken))

    compile_rows(forks, source, data, 30)
    said = train(sft_recipe, *words, f"output_dir={broken}", code=1)
    (reference,) = set(re.findall(r"tuneyard data restore (rte@\S+?)`", said))
    forks.run("compiler", "restore", reference, "--out", data)
    assert "resuming after step" in train(sft_recipe, *words, f"output_dir={broken}")
    whole, resumed = (
        (tmp_path / name / "adapter_model.safetensors").read_bytes() for name in ("whole", "broken")
    )
    assert whole == resumed
