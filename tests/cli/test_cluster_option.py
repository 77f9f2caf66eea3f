"""--cluster and --limit of the scoring commands: one way to tell which examples belong together."""

from pathlib import Path

import pytest

from testing.tiny import write_adapter
from tests.cli import scoring
from tests.cli.scoring import cli_of, predictions
from tests.json_files import read_json, write_lines
from tuneyard.core.errors import RequestError
from tuneyard.eval.compare.__main__ import cli as compare

ANSWERS = ["判断:yes"] * 3 + ["判断:no", "判断:yes", "判断:no", "判断:maybe", "判断:yes"]
ROWS = [
    {
        "conversations": [
            {"from": role, "value": text}
            for role, text in zip(
                ["human", "gpt"] * 2,
                [f"A man has {n} dogs.", "I see.", "Is a dog there?", answer],
                strict=True,
            )
        ],
        "subtype": "one",
        "premise": f"p{n // 3}",
    }
    for n, answer in enumerate(ANSWERS)
]
SHORT = ["--max-new-tokens", "3"]
COMMANDS = {"nli": [], "qa": SHORT, "text": SHORT, "defect": SHORT, "dialogue": SHORT, "ab": SHORT}


pytestmark = pytest.mark.usefixtures("one_thread", "unrendered")


@pytest.fixture
def call(tmp_path: Path, score):
    """`call("nli", …)` runs a command on the rows with the base and an adapter into OUT; returns OUT."""
    write_lines(tmp_path / "s.jsonl", ROWS)
    adapter = write_adapter(tmp_path / "saved")

    def run(name: str, *more: str) -> Path:
        cli = cli_of(name)
        return score(cli, "--adapter", f"one={adapter}", "--data", tmp_path / "s.jsonl", *more)

    return run


def results(out: Path) -> dict:
    return read_json(out / "base/s/results.json")


def compared(out: Path) -> dict:
    """What eval compare has of the dataset."""
    scoring.call(compare, out, "--out", out / "table")
    return read_json(out / "table/table.json")["datasets"]["s"]


def clusters(out: Path) -> list[str | None]:
    return [row.get("cluster") for row in predictions(out / "base/s")]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_takes_the_column_and_tells_it(call, command) -> None:
    out = call(command, *COMMANDS[command], "--cluster", "premise")
    found = results(out)
    assert (found["cluster"], found["clusters"]) == ("premise", 3)
    assert clusters(out) == [row["premise"] for row in ROWS]


@pytest.mark.parametrize("command", [*COMMANDS, "sweep"])
def test_every_command_refuses_a_column_that_is_not_there(call, command, refused) -> None:
    with refused(RequestError, "story"):
        call(command, *COMMANDS.get(command, []), "--cluster", "story")


@pytest.mark.usefixtures("without_plots")
def test_compare_pairs_by_cluster_without_the_data(call, tmp_path) -> None:
    out = call("nli", "--cluster", "premise")
    (tmp_path / "s.jsonl").unlink()
    table = compared(out)
    assert table["groups"] == 3
    figure = table["models"]["base"]
    assert results(out)["ci95"] == [figure["low"], figure["high"]]


@pytest.mark.usefixtures("without_plots")
def test_a_limit_leaves_labels_to_the_whole_set_and_the_baseline_to_the_scored_rows(call) -> None:
    """Of the first four answers none is maybe, and three are yes."""
    out = call("nli", "--limit", "4")
    found = results(out)
    assert found["labels"] == ["判断:maybe", "判断:no", "判断:yes"]
    assert (found["n"], found["majority"], found["majority_label"]) == (4, 3 / 4, "判断:yes")
    assert all(set(row["choices"]) == set(found["labels"]) for row in predictions(out / "base/s"))
    table = compared(out)
    assert (table["n"], table["majority"], table["majority_label"]) == (4, 3 / 4, "判断:yes")
