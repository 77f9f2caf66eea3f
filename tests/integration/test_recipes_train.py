"""`recipes train` with the real llamafactory-cli: cut off by kill -9, damaged, resumed, finished.

The unbroken runs are LLaMA-Factory's own. All are forks, since its import takes 10 s.
"""

import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from testing.forks import Forks
from tests.integration.recipes_stages import STAGES
from tests.json_files import read_json
from tests.messages import printed_line
from tests.processes import is_free, wait_until, written

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def unbroken(sft_recipe, llamafactory) -> dict[str, Path]:
    """What LLaMA-Factory trains of each stage's recipe in one go."""
    folders = {}
    for stage in STAGES:
        folders[stage] = sft_recipe.parent / f"unbroken-{stage}"
        path = sft_recipe.parent / f"{stage}.yaml"
        words = (f"output_dir={folders[stage]}", "use_cpu=true")
        llamafactory.run("llamafactory.cli", "train", path, *words)
    return folders


@pytest.mark.parametrize("stage", STAGES)
def test_killed_damaged_resumed_ends_as_an_unbroken_run(sft_recipe, unbroken, train, forks, stage):
    path, broken = sft_recipe.parent / f"{stage}.yaml", sft_recipe.parent / f"broken-{stage}"
    process = forks.start("recipes", "train", path, f"output_dir={broken}")
    written(broken / "checkpoint-8" / "trainer_state.json", process)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    wait_until(lambda: is_free(broken))  # its training has ended, too
    assert not (broken / "training.json").exists()
    for later in broken.glob("checkpoint-1*"):  # the kill may have come while one was written
        shutil.rmtree(later)
    (broken / "all_results.json").unlink(missing_ok=True)  # or all steps were done before the kill
    newest = broken / "checkpoint-8"
    weights = newest / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])

    said = train(path, f"output_dir={broken}")
    printed_line(said, newest, "adapter_model.safetensors", "truncated")
    assert "resuming after step" in said and "trained in" in said
    assert (broken / f"incomplete-{newest.name}").is_dir()
    whole, resumed = (folder / "adapter_model.safetensors" for folder in (unbroken[stage], broken))
    assert whole.read_bytes() == resumed.read_bytes()
    assert read_json(broken / "trainer_state.json")["global_step"] == 16
    record = read_json(broken / "training.json")
    assert record["inputs"]["settings"]["lora_rank"] == 4
    assert record["result"]["train_loss"] > 0


@pytest.fixture(scope="module")
def four_steps(sft_recipe: Path, forks: Forks) -> Path:
    """A copy of a finished training of max_steps=4, whose checkpoint-4 is at its last step."""
    folder = sft_recipe.parent / "four"
    forks.run("recipes", "train", sft_recipe, f"output_dir={folder}", "max_steps=4")
    return Path(shutil.copytree(folder, sft_recipe.parent / "unbroken-four"))


@pytest.fixture
def finished(sft_recipe: Path, four_steps: Path) -> Path:
    """The folder of that training as it ended, whatever a test before made of it."""
    folder = sft_recipe.parent / "four"
    shutil.rmtree(folder)
    return Path(shutil.copytree(four_steps, folder))


def test_a_finished_run_is_left_as_it_is(sft_recipe: Path, train: Callable[..., str], finished: Path) -> None:
    words = (f"output_dir={finished}", "max_steps=4")
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    assert "up to date" in train(sft_recipe, *words)
    printed_line(train(sft_recipe, *words, "lora_rank=8", code=1), "lora_rank", "4", "8")
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before


@pytest.mark.parametrize("killed", ["before training.json", "after the last checkpoint"])
def test_a_run_that_was_killed_after_its_last_step_trains_no_step_more(
    sft_recipe: Path, train: Callable[..., str], four_steps: Path, finished: Path, killed: str
) -> None:
    """transformers trained step 5 of 4, and the loss in training.json was that of this step alone."""
    folder = finished
    (folder / "training.json").unlink()
    weights = folder / "adapter_model.safetensors"
    if killed == "after the last checkpoint":
        weights.write_bytes(weights.read_bytes()[:-100])
        for path in (*folder.glob("*_results.json"), folder / "trainer_state.json"):
            path.unlink()
    printed = train(sft_recipe, f"output_dir={folder}", "max_steps=4")
    assert [path.name for path in folder.glob("checkpoint-*")] == ["checkpoint-4"]
    assert weights.read_bytes() == (four_steps / weights.name).read_bytes()
    assert read_json(folder / "trainer_state.json")["global_step"] == 4
    record, unbroken = read_json(folder / "training.json"), read_json(four_steps / "training.json")
    assert record["inputs"] == unbroken["inputs"]
    if killed == "before training.json":
        printed_line(printed, folder, "training.json", "missing")
        assert (record["result"], record["added"]) == (unbroken["result"], unbroken["added"])
    else:
        printed_line(printed, folder / "checkpoint-4", 4)


def test_two_at_once_and_sigint(sft_recipe, train, forks):
    folder = sft_recipe.parent / "twice"
    words = (sft_recipe, f"output_dir={folder}", "max_steps=100000")  # it does not end by itself
    process = forks.start("recipes", "train", *words)
    written(folder / "train.log", process)
    assert "another command is writing there" in train(*words, code=2)
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    assert not (folder / "training.json").exists()


def test_a_training_that_fails_says_why(sft_recipe, train, tiny_model):
    folder, broken = sft_recipe.parent / "fails", sft_recipe.parent / "broken-model"
    shutil.copytree(tiny_model, broken)
    weights = load_file(broken / "model.safetensors")
    weights["model.norm.weight"] = torch.zeros(1)  # shapes are compared by the training alone
    save_file(weights, broken / "model.safetensors", {"format": "pt"})
    said = train(sft_recipe, f"output_dir={folder}", f"model_name_or_path={broken}", code=1)
    assert "LLaMA-Factory failed" in said and f"its output is in {folder / 'train.log'}" in said
    assert "mismatch" in said
    assert not (folder / "training.json").exists()
