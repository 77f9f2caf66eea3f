"""What a real training leaves in its folder is enough to know the examples that it trained on."""

from pathlib import Path

import numpy as np
import pytest

from tuneyard.core.datasets.trained_examples import fingerprints_of
from tuneyard.core.llamafactory.prompt import PromptAndAnswer
from tuneyard.core.training.training_run import TRAINED_ROWS
from tuneyard.eval.data.training import trained_on

pytestmark = pytest.mark.slow


def test_run_json_and_llamafactorys_own_card_name_the_examples(sft_recipe: Path, train, monkeypatch) -> None:
    folder, out = sft_recipe.parent, sft_recipe.parent / "few"
    train(sft_recipe, f"output_dir={out}", "max_steps=2", "val_size=0.25")
    asked = np.array(
        [
            fingerprints_of(
                [PromptAndAnswer([{"role": "user", "content": f"Is {n} even? Answer yes or no."}], "yes")]
            )[0]
            for n in range(99)
        ],
        np.uint64,
    )
    told = trained_on([out, out / "checkpoint-2"], Path("none"), "even", asked)
    assert (told["examples"], told["at_most"], told["not_checked"]) == (48, True, []), (
        "two steps: not all of 48"
    )
    (out / "training.json").unlink()
    (folder / "dataset_info").mkdir()
    for name in ("even.json", "dataset_info.json"):
        (folder / name).rename(folder / "dataset_info" / name)
    monkeypatch.chdir(folder)
    other = out.rename(folder / "plain")  # another folder, since what a folder says is read once
    (other / "started.json").unlink(missing_ok=True)
    (other / TRAINED_ROWS).unlink()
    told = trained_on([other], Path("none"), "even", asked)
    assert (told["examples"], told["sources"], told["not_checked"]) == (64, ["plain/README.md"], [])
    assert told["at_most"], "the card does not say that val_size held 16 of the 64 out"
