"""verify --recipe: a recipe that does not train the dataset, and the rows that an entry selects."""

import json
from pathlib import Path

import pytest

from tests.json_files import write_json
from tests.messages import raises
from tuneyard.compiler.verify.dataset import verify
from tuneyard.compiler.verify.recipe_file import read_settings
from tuneyard.compiler.verify.verdict import Verdict
from tuneyard.core.errors import ContentError
from tuneyard.core.llamafactory.loader import import_offline

pytestmark = pytest.mark.slow
ENTRY = {"columns": {"prompt": "instruction", "query": "input", "response": "output"}}
MINE = 60


class Folder:
    """A folder with the datasets `other` (25 rows), `mine` (60 rows) and `held` (5 rows), and recipes."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder, self.model = folder, model
        self.info = {}
        for name, count in (("other", 25), ("mine", MINE), ("held", 5)):
            rows = [{"instruction": f"{name} {n}?", "input": "", "output": "yes"} for n in range(count)]
            write_json(folder / f"{name}.json", rows)
            self.info[name] = {"file_name": f"{name}.json", **ENTRY}
        self.register()

    def register(self, **changes: object) -> None:
        """Write the registry with keys of `mine` changed."""
        info = self.info | {"mine": self.info["mine"] | changes}
        write_json(self.folder / "dataset_info.json", info)

    def recipe(self, **settings: object) -> Path:
        """Write a recipe that trains `mine`, with other settings."""
        base = {
            "stage": "sft",
            "do_train": True,
            "dataset": "mine",
            "dataset_dir": str(self.folder),
            "template": "qwen",
        }
        kept = {key: value for key, value in (base | settings).items() if value is not None}
        path = self.folder / "r.yaml"
        path.write_text("".join(f"{key}: {json.dumps(value)}\n" for key, value in kept.items()))
        return path

    def verify(self, name: str = "mine", siblings: tuple[str, ...] = (), **settings: object) -> Verdict:
        path = self.recipe(**settings)
        return verify(name, self.folder, *read_settings(path, {}), siblings)


@pytest.fixture
def sets(tmp_path: Path, tiny_model: Path) -> Folder:
    import_offline()
    return Folder(tmp_path, tiny_model)


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"dataset": "other"}, "dataset"),
        ({"dataset_dir": None}, "dataset_dir"),
        ({"dataset_dir": "nowhere"}, "dataset_dir"),
        ({"dataset_dir": "ONLINE"}, "dataset_dir"),
    ],
)
def test_a_recipe_that_does_not_read_the_dataset_is_an_error(sets, tmp_path, settings, key):
    verdict = sets.verify(**settings)
    found = [(problem.code, problem.field) for problem in verdict.problems]
    assert found == [("E433", key)] and verdict.failed
    line = list((tmp_path / "r.yaml").read_text().splitlines())
    written = [number for number, text in enumerate(line, 1) if text.startswith(f"{key}:")]
    expected = f"{tmp_path / 'r.yaml'}:{written[0]}" if written else str(tmp_path / "r.yaml")
    assert verdict.problems[0].place == expected


def test_datasets_of_one_compile_need_not_all_be_trained(sets):
    assert not sets.verify("held", siblings=("mine", "held")).failed
    assert not sets.verify("held", eval_dataset="held").failed


@pytest.mark.parametrize(
    "settings", [{"dataset": None, "dataset_dir": None}, {"do_train": False, "do_predict": True}]
)
def test_a_recipe_without_a_dataset_or_that_only_predicts_is_no_finding(sets, settings):
    assert not sets.verify(**settings).failed


@pytest.mark.parametrize("stage", ["sft", "kto"])
def test_a_stage_that_does_not_fit_pairs_is_one_finding(sets, stage):
    rows = [{"instruction": f"{n}?", "input": "", "chosen": "a", "rejected": "b"} for n in range(9)]
    write_json(sets.folder / "mine.json", rows)
    columns = {"prompt": "instruction", "query": "input", "chosen": "chosen", "rejected": "rejected"}
    sets.register(ranking=True, columns=columns)
    verdict = sets.verify(stage=stage)
    (problem,) = verdict.problems
    assert (problem.code, problem.field) == ("E434", "stage") and verdict.same == 9
    assert stage in problem.message and "stage: dpo" in problem.hint and problem.place.endswith("r.yaml:1")
    assert sets.verify(stage="dpo", pref_beta=0.1).problems == []


def test_settings_that_llamafactory_refuses_are_said(sets):
    with raises(ContentError, "mask_history"):
        sets.verify(mask_history=True, train_on_prompt=True)


def test_the_whole_file_is_verified_also_if_a_part_of_it_is_trained(sets):
    sets.register(split="train[:2]", num_samples=1)
    verdict = sets.verify()
    assert (verdict.records, verdict.loaded, verdict.same) == (MINE, MINE, MINE)


def test_num_samples_and_split_of_an_entry_are_no_findings(sets):
    sets.register(num_samples=10)
    verdict = sets.verify()
    assert verdict.same == MINE and not verdict.failed
    sets.register(split="train")
    assert sets.verify().same == MINE
