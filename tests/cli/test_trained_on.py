"""An adapter scored on what it was trained on: told by the scorer, the table, the verdict and the page."""

from pathlib import Path

import pytest

from testing.tiny import write_adapter
from tests.cli.scoring import call
from tests.json_files import read_json, write_json
from tests.messages import printed, printed_line
from tuneyard.core.files import sha256
from tuneyard.eval.compare.__main__ import cli as compare
from tuneyard.eval.nli import cli as nli

pytestmark = pytest.mark.usefixtures("one_thread", "unrendered")
ROWS = [{"instruction": f"Is it {n}?", "input": "", "output": "yes" if n % 2 else "no"} for n in range(12)]


@pytest.fixture(autouse=True)
def trained_adapter(working_folder) -> None:
    Path("dataset_info").mkdir()
    write_json(Path("dataset_info/mine.json"), ROWS)
    Path("dataset_info/dataset_info.json").write_text('{"mine": {"file_name": "mine.json"}}')
    write_adapter(Path("saves/mine"))
    data = {
        "dataset": "mine",
        "file": "dataset_info/mine.json",
        "sha256": sha256(Path("dataset_info/mine.json")),
    }
    write_json(
        Path("saves/mine/training.json"), {"inputs": {"settings": {"dataset": "mine"}, "data": [data]}}
    )


def test_training_accuracy_is_called_so_everywhere(tiny_model, capsys) -> None:
    call(nli, "--model", tiny_model, "--adapter", "mine", "--dataset", "mine", "--out", "out")
    said = "mine was trained on 12 of these 12 examples"
    printed_line(capsys.readouterr().err, "warning", said, "saves/mine/training.json", "training accuracy")
    told = read_json(Path("out/mine/mine/results.json"))["trained_on"]
    assert (told["examples"], told["sources"]) == (12, ["saves/mine/training.json"])
    assert read_json(Path("out/base/mine/results.json"))["trained_on"] is None
    call(compare, "out", "--out", "table")
    printed, err = capsys.readouterr()
    assert ", trained on 12 |" in printed
    assert f"{said}: this is training accuracy." in Path("table/table.md").read_text()
    printed_line(err, "warning", "mine", said, "saves/mine/training.json", "training accuracy")
    table = read_json(Path("table/table.json"))
    section = table["datasets"]["mine"]
    assert section["models"]["mine"]["trained_on"] == 12 and section["models"]["base"]["trained_on"] == 0
    assert section["verdict"].endswith(f"{said}: this is training accuracy.")
    (trained,) = table["warnings"]
    assert f"warning: {trained}" in err
    html = Path("table/report.html").read_text()
    assert f"{said}: this is training accuracy." in html and "Warning: mine: mine was trained on 12" in html


CARD = """---
library_name: peft
---

This model is a fine-tuned version of [base](https://huggingface.co/base) on the mine dataset.
"""


def test_a_record_without_max_samples_makes_the_count_an_upper_bound(tiny_model, capsys) -> None:
    """LLaMA-Factory's card names the dataset, and not how many of its rows the training read."""
    Path("saves/mine/training.json").unlink()
    Path("saves/mine/README.md").write_text(CARD)
    call(nli, "--model", tiny_model, "--adapter", "mine", "--dataset", "mine", "--out", "out")
    said = "mine was trained on up to 12 of these 12 examples"
    err = capsys.readouterr().err
    assert f"warning: {said} (saves/mine/README.md)" in err and "on them is training accuracy" in err
    call(compare, "out", "--out", "table")
    page = Path("table/table.md").read_text()
    assert said in page and "trained on 12 " not in page
    assert ", trained on up to 12 |" in capsys.readouterr().out
    scores = read_json(Path("table/table.json"))["datasets"]["mine"]["models"]
    assert scores["mine"]["trained_on"] == 12 and scores["mine"]["trained_on_at_most"] is True
    assert scores["base"]["trained_on_at_most"] is False


def test_new_examples_need_no_word(tiny_model, capsys) -> None:
    write_json(Path("new.json"), [{**row, "input": "new"} for row in ROWS])
    call(nli, "--model", tiny_model, "--adapter", "mine", "--data", "new.json", "--out", "out")
    call(compare, "out", "--out", "table")
    assert "trained on" not in "".join(capsys.readouterr())


def test_what_is_not_checked_is_said_once_for_a_model(tiny_model, capsys) -> None:
    Path("saves/mine/training.json").unlink()
    write_json(Path("new.json"), ROWS)
    call(
        nli,
        "--model",
        tiny_model,
        "--adapter",
        "mine",
        "--dataset",
        "mine",
        "--data",
        "new.json",
        "--out",
        "out",
    )
    files = "no training.json, and no README.md that names its datasets"
    reason = f"saves/mine: no record of its training rows ({files})"
    (warning,) = [line for line in capsys.readouterr().err.splitlines() if "not checked" in line]
    printed(warning, "warning", "mine", reason)
    call(compare, "out", "--out", "table")
    assert capsys.readouterr().err.count("not checked") == 1
    warnings = read_json(Path("table/table.json"))["warnings"]
    assert warnings == [f"mine: training examples not checked: {reason}"]
