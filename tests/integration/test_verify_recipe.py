"""verify --recipe: how many rows a recipe trains, beside LLaMA-Factory's own `get_dataset`."""

import json
import re
from pathlib import Path

import pytest

from tests.messages import printed, raises
from tuneyard.compiler.verify.dataset import read_settings, verify
from tuneyard.compiler.verify.report import as_json, lines
from tuneyard.compiler.verify.trained import read_recipe_file
from tuneyard.compiler.verify.verdict import Verdict
from tuneyard.core.errors import ContentError
from tuneyard.core.training.llamafactory import import_offline, quiet, read_arguments

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
            (folder / f"{name}.json").write_text(json.dumps(rows))
            self.info[name] = {"file_name": f"{name}.json", **ENTRY}
        self.register()

    def register(self, **changes: object) -> None:
        """Write the registry with keys of `mine` changed."""
        info = self.info | {"mine": self.info["mine"] | changes}
        (self.folder / "dataset_info.json").write_text(json.dumps(info))

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
        read = read_settings(path, {})
        return verify(name, self.folder, read, read_recipe_file(path, read), siblings)

    def trained_by_llamafactory(self, **settings: object) -> list[str]:
        """Return the questions that LLaMA-Factory's own get_dataset puts into the training set."""
        from llamafactory.data import get_dataset

        read = read_settings(self.recipe(**settings), {})
        asked = read | {
            "model_name_or_path": str(self.model),
            "do_train": True,
            "finetuning_type": "lora",
            "overwrite_cache": True,
            "cache_dir": str(self.folder / "cache"),
        }
        with quiet():
            data = read_arguments(asked).with_tokenizer().with_template()
            arguments = (data.template, data.model_args, data.data_args, data.training_args)
            rows = get_dataset(*arguments, stage="sft", **data.module)["train_dataset"]
        texts = [data.module["tokenizer"].decode(ids) for ids in rows["input_ids"]]
        return [re.search(r"(mine|other|held) \d+(?=\?)", text)[0] for text in texts]


@pytest.fixture
def sets(tmp_path: Path, tiny_model: Path) -> Folder:
    import_offline()
    return Folder(tmp_path, tiny_model)


MIXED = {"dataset": "other,mine", "seed": 7}


@pytest.mark.parametrize(
    ("entry", "settings", "steps"),
    [
        ({}, {}, 0),
        ({}, {"max_samples": 10}, 1),
        ({}, {"max_samples": 100}, 0),
        ({}, {"val_size": 0.25}, 1),
        ({}, {"val_size": 7, "max_samples": 20}, 2),
        ({}, {"eval_dataset": "held"}, 0),
        ({"num_samples": 12}, {}, 1),
        ({"num_samples": 90}, {"max_samples": 80}, 2),
        ({"split": "train[:30]"}, {"val_size": 0.1}, 1),
        ({}, MIXED | {"val_size": 0.3}, 1),
        ({}, MIXED | {"mix_strategy": "interleave_over", "interleave_probs": "0.1,0.9"}, 1),
        ({}, MIXED | {"mix_strategy": "interleave_under"}, 1),
        ({}, MIXED | {"mix_strategy": "interleave_over", "interleave_probs": "0.8,0.2", "val_size": 5}, 1),
        (
            {},
            MIXED | {"mix_strategy": "interleave_under", "interleave_probs": "0.1,0.9", "max_samples": 30},
            1,
        ),
        ({}, {"dataset": ["mine", "other"], "mix_strategy": "interleave_over"}, 0),
    ],
)
def test_as_many_rows_as_llamafactory_trains(sets, entry, settings, steps):
    sets.register(**entry)
    verdict = sets.verify(**settings)
    theirs = [text for text in sets.trained_by_llamafactory(**settings) if text.startswith("mine")]
    assert verdict.trained == len(theirs) and as_json(verdict)["trained"] == len(theirs)
    assert not verdict.failed
    (note,) = [note for note in verdict.notes if "trains" in note]
    assert note.startswith(f"{sets.folder / 'r.yaml'} trains {len(theirs)} of these")
    assert (note.count(";") + 1 if "(" in note else 0) == steps
    assert note in lines(verdict, every=False)


@pytest.mark.parametrize("entry", [{}, {"split": "train[50:]+train[:20]"}])
def test_rows_that_llamafactory_drops_are_not_counted(sets, entry):
    rows = [
        {"instruction": f"mine {n}?", "input": "", "output": None if n % 7 == 3 else "yes"}
        for n in range(MINE)
    ]
    (sets.folder / "mine.json").write_text(json.dumps(rows))
    sets.register(**entry)
    settings = {"val_size": 0.3, "max_samples": 25}
    verdict = sets.verify(**settings)
    assert verdict.trained == len(sets.trained_by_llamafactory(**settings)) < 18
    assert "E406" in verdict.notes[-1]


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"dataset": "other"}, "dataset"),
        ({"do_train": False}, "do_train"),
        ({"do_train": None}, "do_train"),
        ({"dataset_dir": None}, "dataset_dir"),
        ({"dataset_dir": "nowhere"}, "dataset_dir"),
        ({"dataset_dir": "ONLINE"}, "dataset_dir"),
        ({"tokenized_path": "{}"}, "tokenized_path"),
        ({"val_size": 100}, "dataset"),
        (MIXED | {"mix_strategy": "interleave_under", "interleave_probs": "1,0"}, "dataset"),
        (MIXED | {"interleave_probs": "0.5,0.5"}, "dataset"),
    ],
)
def test_a_recipe_that_does_not_train_the_dataset_is_an_error(sets, tmp_path, settings, key):
    settings = {name: str(tmp_path) if value == "{}" else value for name, value in settings.items()}
    verdict = sets.verify(**settings)
    found = [(problem.code, problem.field) for problem in verdict.problems]
    assert found == [("E433", key)] and verdict.failed
    line = list((tmp_path / "r.yaml").read_text().splitlines())
    written = [number for number, text in enumerate(line, 1) if text.startswith(f"{key}:")]
    expected = f"{tmp_path / 'r.yaml'}:{written[0]}" if written else str(tmp_path / "r.yaml")
    assert verdict.problems[0].place == expected


def test_a_tokenized_path_that_is_yet_to_be_written_is_no_error(sets, tmp_path):
    verdict = sets.verify(tokenized_path=str(tmp_path / "new"))
    assert not verdict.failed and verdict.trained == MINE


def test_datasets_of_one_compile_need_not_all_be_trained(sets):
    held = sets.verify("held", siblings=("mine", "held"))
    assert not held.failed and held.trained == 0
    evaluated = sets.verify("held", eval_dataset="held")
    assert not evaluated.failed and "evaluates on held" in "".join(evaluated.notes)


def test_a_recipe_without_a_dataset_is_not_counted(sets):
    verdict = sets.verify(dataset=None, dataset_dir=None)
    assert not verdict.failed and verdict.trained is None and "names no dataset" in verdict.notes[-1]


def test_another_missing_dataset_leaves_the_rows_uncounted(sets):
    verdict = sets.verify(dataset="mine,gone", val_size=0.1)
    assert verdict.trained is None and "'gone'" in "".join(verdict.notes)


@pytest.mark.parametrize("stage", ["sft", "kto"])
def test_a_stage_that_does_not_fit_pairs_is_one_finding(sets, stage):
    rows = [{"instruction": f"{n}?", "input": "", "chosen": "a", "rejected": "b"} for n in range(9)]
    (sets.folder / "mine.json").write_text(json.dumps(rows))
    columns = {"prompt": "instruction", "query": "input", "chosen": "chosen", "rejected": "rejected"}
    sets.register(ranking=True, columns=columns)
    verdict = sets.verify(stage=stage)
    (problem,) = verdict.problems
    assert (problem.code, problem.field) == ("E434", "stage") and verdict.same == 9
    assert verdict.trained == 0
    assert stage in problem.message and "stage: dpo" in problem.hint and problem.place.endswith("r.yaml:1")
    assert sets.verify(stage="dpo", pref_beta=0.1).problems == []


def test_a_recipe_that_only_evaluates_trains_nothing(sets):
    verdict = sets.verify(do_train=False, do_predict=True)
    assert not verdict.failed and verdict.trained == 0
    printed(verdict.notes[-1], "trains 0", "60 rows", "do_train")


@pytest.mark.parametrize(
    ("stage", "key", "stops_at"),
    [("sft", "dataset", "pairs"), ("sft", "eval_dataset", "pairs"), ("dpo", "dataset", "other")],
)
def test_llamafactory_stops_at_another_dataset_of_another_stage(sets, stage, key, stops_at):
    """As LLaMA-Factory's own loader does, which raises for the mixture."""
    rows = [{"instruction": f"{n}?", "input": "", "chosen": "a", "rejected": "b"} for n in range(9)]
    (sets.folder / "pairs.json").write_text(json.dumps(rows))
    columns = {"prompt": "instruction", "query": "input", "chosen": "chosen", "rejected": "rejected"}
    pairs = {"file_name": "pairs.json", "ranking": True, "columns": columns}
    sets.info["pairs"] = pairs
    sets.register()
    name = "pairs" if stage == "dpo" else "mine"
    settings = {"dataset": f"{name},{stops_at}"} if key == "dataset" else {key: stops_at}
    verdict = sets.verify(name, stage=stage, **settings)
    (problem,) = verdict.problems
    assert (problem.code, problem.field) == ("E434", key) and problem.message.startswith(stops_at)
    assert verdict.failed and verdict.trained == 0
    assert "trains 0 of these" in verdict.notes[-1]
    if stage == "sft":
        with pytest.raises(ValueError, match="not applicable in the current training stage"):
            sets.trained_by_llamafactory(**settings)


def test_settings_that_llamafactory_refuses_are_said(sets):
    with raises(ContentError):
        sets.verify(mask_history=True, train_on_prompt=True)


def test_a_folder_is_loaded_whole_as_llamafactory_does(sets, tmp_path):
    (tmp_path / "many").mkdir()
    for name in ("b", "a"):
        rows = [{"instruction": f"mine {n}?", "input": "", "output": name} for n in range(4)]
        (tmp_path / "many" / f"{name}.json").write_text(json.dumps(rows))
    sets.register(file_name="many")
    verdict = sets.verify()
    assert (verdict.records, verdict.same, verdict.trained) == (8, 8, 8) and not verdict.failed
    assert len(sets.trained_by_llamafactory()) == 8
    (tmp_path / "many" / "notes.md").write_text("x")
    unread = sets.verify()
    assert [problem.code for problem in unread.problems] == ["E435"]
    assert not [line for line in lines(unread, every=False) if "records" in line]
    assert as_json(unread)["records"] is None and as_json(unread)["loaded"] is None


def test_num_samples_and_split_of_an_entry_are_no_findings(sets):
    sets.register(num_samples=10)
    verdict = sets.verify()
    assert (verdict.same, verdict.trained) == (MINE, 10) and not verdict.failed
    (note,) = [note for note in verdict.notes if note.startswith("num_samples")]
    assert "again" not in note
    sets.register(num_samples=2 * MINE)
    repeated = sets.verify()
    assert repeated.trained == 2 * MINE
    assert [("again" in note) for note in repeated.notes if "num_samples" in note] == [True, True]
    sets.register(split="train[50:]+train[:5]")
    verdict = sets.verify()
    assert (verdict.records, verdict.loaded, verdict.same, verdict.trained) == (MINE, 15, 15, 15)
    assert any("split" in note for note in verdict.notes) and not verdict.failed


def test_a_streamed_dataset_with_max_steps_is_not_counted(sets):
    """`max_steps` is what LLaMA-Factory wants there: its refusal was shown for recipes that have it."""
    verdict = sets.verify(streaming=True, max_steps=5)
    assert not verdict.failed and verdict.trained is None and "streaming" in verdict.notes[-1]
    assert sets.verify(streaming=True).counts == {"E433": 1}
