"""Which examples a model was trained on: by training.json, LLaMA-Factory's card, and our cards of merges."""

import re
import shutil
from array import array
from pathlib import Path

import pytest

from testing.tiny import write_adapter
from tests.cli.scoring import call
from tests.json_files import read_json, write_json, write_lines
from tests.messages import printed
from tuneyard.core.datasets.compiled import row_index_file, write_row_index
from tuneyard.core.datasets.trained_examples import fingerprints_of, write_trained_rows
from tuneyard.core.files import sha256
from tuneyard.core.llamafactory.prompt import PromptAndAnswer
from tuneyard.core.training.training_run import TRAINED_ROWS
from tuneyard.eval.data.training import trained_on

NOWHERE = Path("nowhere")
ROWS = [{"instruction": f"Q{n}", "input": "", "output": "A"} for n in range(20)]
CARD = """---
library_name: peft
---

This model is a fine-tuned version of [base](https://huggingface.co/base) on {datasets}.
"""


@pytest.fixture(autouse=True)
def one_and_two(working_folder) -> None:
    for name, rows in (("one", ROWS[:10]), ("two", ROWS[10:])):
        register(name, rows)


def register(name: str, rows: list[dict], **entry: object) -> Path:
    registry = Path("dataset_info/dataset_info.json")
    registry.parent.mkdir(exist_ok=True)
    known = read_json(registry) if registry.is_file() else {}
    write_json(registry, {**known, name: {"file_name": f"{name}.json", **entry}})
    path = Path(f"dataset_info/{name}.json")
    write_json(path, rows)
    return path


def asked(*numbers: int) -> list[PromptAndAnswer]:
    return [PromptAndAnswer([{"role": "user", "content": f"Q{n}"}], "A") for n in numbers]


def ran(name: str, *datasets: str, file: str = "training.json", **settings: object) -> Path:
    """An adapter of a training of ours, whose eval_dataset stands among its data too."""
    folder = write_adapter(Path("saves") / name, seed=len(name))
    named = {"dataset": ",".join(datasets), "eval_dataset": "two", **settings}
    files = {one: Path(f"dataset_info/{one}.json") for one in dict.fromkeys([*datasets, "two"])}
    data = [{"dataset": n, "file": str(path), "sha256": sha256(path)} for n, path in files.items()]
    inputs = {"settings": named, "data": data}
    write_json(folder / file, {"inputs": inputs} if file == "training.json" else inputs)
    return folder


def found(folder: Path, *numbers: int, name: str = "mine") -> dict:
    return trained_on([folder], NOWHERE, name, fingerprints_of(asked(*numbers)))


@pytest.mark.parametrize("file", ["training.json", "started.json"])
def test_examples_are_found_in_what_run_json_names_and_not_in_its_eval_dataset(file) -> None:
    told = found(ran("mine", "one", file=file, load_best_model_at_end=True), 3, 5, 5, 12, name="two")
    unfinished = file == "started.json"
    sources = [f"saves/mine/{file}"]
    assert told == {
        "examples": 3, "at_most": unfinished, "sources": sources, "same_name": [], "chose": sources,
        "not_checked": [],
    }  # fmt: skip


def test_a_checkpoint_is_told_by_the_run_that_it_lies_in() -> None:
    ran("mine", "one")
    assert found(write_adapter(Path("saves/mine/checkpoint-7")), 3)["examples"] == 1


def test_fingerprints_beside_the_records_are_taken_where_they_are_of_them() -> None:
    path = Path("dataset_info/one.json")
    write_row_index(row_index_file(path), array("Q", fingerprints_of(asked(70))), {})
    assert found(ran("mine", "one"), 3, 70)["examples"] == 1
    files = {"one.json": {"rows": 10, "sha256": "0" * 64}}
    write_json(Path("dataset_info/manifest.json"), {"files": files, "made_from": {"sources": []}})
    assert found(ran("mine2", "one"), 3, 5, 70)["examples"] == 2


def test_a_dataset_is_read_as_its_entry_says_and_the_system_text_is_left_out() -> None:
    rows = [{"q": f"Q{n}", "a": "A", "s": "be kind"} for n in range(4)]
    register("qa", rows, columns={"prompt": "q", "response": "a", "system": "s"})
    assert found(ran("mine", "qa"), 2, 3, 4)["examples"] == 2


@pytest.mark.parametrize("size", [0.25, 5])
def test_rows_that_val_size_held_out_were_not_trained_on(size) -> None:
    datasets = pytest.importorskip("datasets")
    parts = datasets.Dataset.from_dict({"n": list(range(20))}).train_test_split(test_size=size, seed=7)
    folder = ran("mine", "one", "two", val_size=size, seed=7)
    assert found(folder, *parts["test"]["n"])["examples"] == 0
    assert found(folder, *parts["train"]["n"])["examples"] == 15


def test_of_a_folder_of_files_the_rows_of_a_training_are_unknown() -> None:
    folder = Path("dataset_info/many")
    folder.mkdir()
    write_lines(folder / "rows.jsonl", ROWS)
    registry = Path("dataset_info/dataset_info.json")
    registry.write_text(registry.read_text().replace("one.json", "many"))
    training = ran("mine", "one")
    record = training / "training.json"
    record.write_text(record.read_text().replace("one.json", "many"))
    counts = found(training, 3, 7)
    assert counts["examples"] == 0 and "a folder" in counts["not_checked"][0]


def test_max_samples_takes_the_first_of_each_dataset() -> None:
    folder = ran("mine", "one", "two", max_samples=4)
    assert [n for n in range(20) if found(folder, n)["examples"]] == [0, 1, 2, 3, 10, 11, 12, 13]
    assert not found(folder, *range(20))["at_most"]


@pytest.mark.parametrize(
    ("settings", "at_most"),
    [
        ({"max_steps": 3}, True),
        ({"max_steps": -1}, False),
        ({"max_steps": 0}, False),
        ({"num_train_epochs": 0.5}, True),
        ({"num_train_epochs": 3}, False),
    ],
)
def test_a_training_that_ends_inside_its_first_pass_may_have_read_fewer(settings, at_most) -> None:
    told = found(ran("mine", "one", **settings), *range(10))
    assert (told["examples"], told["at_most"]) == (10, at_most)


def test_what_another_training_is_known_to_have_read_is_certain() -> None:
    """A merge of one adapter whose record is complete, and one that only names the same dataset."""
    ran("first", "one")
    second = write_adapter(Path("saves/second"), seed=9)
    (second / "README.md").write_text(CARD.format(datasets="the one dataset"))
    merge("first=0.5", "./saves/second=0.5")
    told = found(Path("saves/both"), *range(10))
    assert (told["examples"], told["at_most"]) == (10, False)


@pytest.mark.parametrize(
    ("datasets", "numbers"),
    [
        ("the one dataset", range(10)),
        ("the one and the two datasets", range(20)),
        ("the one, the two and\nthe a\\_third datasets", range(21)),  # wrapped, and escaped
        ("an unknown dataset", []),
    ],
)
def test_plain_llamafactory_names_its_datasets_in_readme_md(datasets, numbers) -> None:
    register("a_third", [{"instruction": "Q20", "output": "A"}])
    folder = write_adapter(Path("saves/mine"))
    (folder / "README.md").write_text(CARD.format(datasets=datasets))
    told = found(folder, *range(25))
    assert told["examples"] == len(numbers)
    assert told["at_most"] == bool(numbers), "a card does not name max_samples, val_size or max_steps"
    assert told["sources"] == (["saves/mine/README.md"] if numbers else [])
    files = "no training.json, and no README.md that names its datasets"
    missing = [f"saves/mine: no record of its training rows ({files})"]
    assert told["not_checked"] == ([] if numbers else missing)


def test_a_merge_is_told_by_the_adapters_that_it_names() -> None:
    first, second = ran("first", "one"), write_adapter(Path("saves/second"), seed=9)
    merge("first=0.5", "./saves/second=0.5")
    told = found(Path("saves/both"), 1, 12)
    assert (told["examples"], told["sources"]) == (1, ["saves/first/training.json"])
    (reason,) = told["not_checked"]
    printed(reason, "saves/second", "training.json", "README.md")
    write_adapter(Path("saves/other"), seed=77)
    Path("saves/other/adapter_model.safetensors").replace(first / "adapter_model.safetensors")
    merged = Path("saves/both").rename("saves/again")
    told = found(merged, 1, 12)
    assert (told["examples"], told["at_most"]) == (1, True)  # of the datasets in merge.json
    assert told["sources"] == ["saves/again/merge.json"]
    shutil.rmtree(second)
    merged = merged.rename("saves/once-more")
    assert any("saves/second" in reason for reason in found(merged, 1, 12)["not_checked"])
    shutil.rmtree(first)
    assert found(merged.rename("saves/last"), 1, 12)["sources"] == ["saves/last/merge.json"]


def formatted(text: str) -> str:
    """Markdown as formatters write it: tables padded, lists and rules anew, underscores escaped, CRLF."""
    text = re.sub(r" \| ", "   |   ", text).replace("---\n", "______\n").replace("```yaml", "~~~ yaml")
    return text.replace("_", "\\_").replace("\n", "\r\n")


@pytest.mark.parametrize("spoil", [formatted, lambda _: ""])
def test_the_card_of_a_merge_may_be_formatted_or_emptied(spoil) -> None:
    ran("first", "one"), ran("second", "two")
    merge("first=0.5", "second=0.5")
    folder = Path("saves/both")
    before = found(folder, 1, 12)
    assert before["examples"] == 2
    card = folder / "README.md"
    card.write_text(spoil(card.read_text()))
    assert found(Path("saves/both").rename("saves/again"), 1, 12) == before


def test_a_damaged_merge_json_is_named() -> None:
    ran("first", "one")
    merge("first=1")
    path = Path("saves/both/merge.json")
    path.write_text(path.read_text().replace("parameters", "values"))
    (reason,) = found(Path("saves/both"), 1)["not_checked"]
    assert "merge.json" in reason and "is missing" in reason


def merge(*parts: str) -> None:
    from tuneyard.adapters.__main__ import cli

    call(cli, "merge", *parts, "--out", "saves/both")


def test_a_base_without_a_record_says_nothing_and_one_with_one_counts_for_every_adapter() -> None:
    Path("base").mkdir()
    assert trained_on([], Path("base"), "x", fingerprints_of([])) is None
    assert trained_on([], NOWHERE, "x", fingerprints_of([])) is None
    Path("full").mkdir()
    (ran("mine", "one") / "training.json").replace("full/training.json")
    assert trained_on([], Path("full"), "x", fingerprints_of(asked(3)))["sources"] == ["full/training.json"]


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (
            lambda path: path.unlink(),
            "one (saves/mine/training.json): dataset_info/one.json is not there any more",
        ),
        (lambda path: path.write_text("[]"), "dataset_info/one.json changed since it was trained on"),
    ],
)
def test_what_cannot_be_compared_is_said_and_a_dataset_of_the_same_name_is_named(spoil, reason) -> None:
    folder = ran("mine", "one")
    spoil(Path("dataset_info/one.json"))
    told = found(folder, 3, name="one")
    assert (told["examples"], told["same_name"]) == (0, ["saves/mine/training.json"])
    assert reason in told["not_checked"][0] and len(told["not_checked"]) == 1
    assert found(folder, 3, name="other")["same_name"] == []


@pytest.mark.parametrize("record", ["{}", '{"inputs": 3}', '{"inputs": {"data": [3, {}], "settings": []}}'])
def test_a_record_without_data_is_not_checked(record) -> None:
    folder = write_adapter(Path("saves/mine"))
    (folder / "training.json").write_text(record)
    (reason,) = found(folder, 3)["not_checked"]
    printed(reason, "saves/mine/training.json")


def keep(folder: Path, *numbers: int) -> Path:
    """Fingerprints next to the weights, as `recipe train` leaves them."""
    write_trained_rows(folder, [fingerprints_of(asked(*numbers))])
    return folder


@pytest.mark.parametrize("change", ["other rows", "gone", "registry gone"])
def test_with_fingerprints_the_count_is_exact_whatever_became_of_the_dataset(change: str) -> None:
    folder = keep(ran("mine", "one", load_best_model_at_end=True), *range(10))
    path = Path("dataset_info/one.json")
    if change == "other rows":
        write_json(path, ROWS[10:])
    elif change == "gone":
        path.unlink()
    else:
        shutil.rmtree("dataset_info")
    sources = ["saves/mine/training.json"]
    assert found(folder, 3, 5, 5, 12, name="two") == {
        "examples": 3, "at_most": False, "sources": sources, "same_name": [], "chose": sources,
        "not_checked": [],
    }  # fmt: skip


def test_the_fingerprints_and_not_the_dataset_decide() -> None:
    assert found(keep(ran("mine", "one"), 70), 3, 70)["examples"] == 1


def test_a_training_that_may_have_left_rows_out_has_at_most_the_recorded_ones() -> None:
    counts = found(keep(ran("mine", "one", max_steps=3), *range(10)), 3, 5)
    assert (counts["examples"], counts["at_most"]) == (2, True)
    mixed = found(keep(ran("mixed", "one", mix_strategy="interleave_under"), *range(10)), 3, 5)
    assert (mixed["examples"], mixed["at_most"]) == (2, True)


def test_of_rows_that_are_drawn_at_random_the_count_is_an_upper_bound() -> None:
    folder = ran("mine", "one")
    record = read_json(folder / "training.json")
    record["inputs"]["data"][0] |= {"rows": 10, "num_samples": 4}
    write_json(folder / "training.json", record)
    assert found(keep(folder, *range(10)), 3)["at_most"]


def test_an_adapter_with_fingerprints_alone_has_an_upper_bound() -> None:
    folder = keep(write_adapter(Path("saves/extracted")), 3, 4)
    counts = found(folder, 3, 12)
    assert (counts["examples"], counts["at_most"], counts["not_checked"]) == (1, True, [])
    assert counts["sources"] == [f"saves/extracted/{TRAINED_ROWS}"]


def test_a_merge_has_the_rows_of_its_adapters_also_when_these_are_gone() -> None:
    keep(ran("first", "one"), *range(10))
    keep(ran("second", "two"), *range(10, 20))
    merge("first=0.5", "second=0.5")
    shutil.rmtree("dataset_info")
    counts = found(Path("saves/both"), 3, 12, 70)
    assert (counts["examples"], counts["at_most"], counts["not_checked"]) == (2, False, [])
    shutil.copytree("saves/both", "saves/copy")
    shutil.rmtree("saves/first")
    gone = found(Path("saves/copy"), 3, 12, 70)
    assert (gone["examples"], gone["at_most"], gone["not_checked"]) == (2, True, [])
    assert gone["sources"] == [f"saves/copy/{TRAINED_ROWS}"]


def test_a_sum_of_adapters_has_the_rows_of_each() -> None:
    adapters = [keep(ran("first", "one"), 3, 4), keep(ran("second", "two"), 4, 12)]
    counts = trained_on(adapters, NOWHERE, "x", fingerprints_of(asked(3, 4, 12, 13)))
    assert (counts["examples"], counts["at_most"]) == (3, False)


@pytest.mark.parametrize("content", [b"", b"\x80\x04.", b"PK\x03\x04"])
def test_a_broken_file_of_fingerprints_is_named_and_stops_no_scoring(content: bytes) -> None:
    folder = ran("mine", "one")
    (folder / TRAINED_ROWS).write_bytes(content)
    counts = found(folder, 3)
    (reason,) = counts["not_checked"]
    printed(reason, "saves/mine", TRAINED_ROWS, "remove it")
