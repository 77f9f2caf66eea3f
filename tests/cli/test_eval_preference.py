"""python -m eval.preference on a tiny model, in this process: against a plain loop, what is refused."""

import math
import re
from pathlib import Path

import pytest

from testing.tiny import write_adapter
from tests.cli.scoring import answer_logp, call, predictions, results
from tests.json_files import read_json, write_json, write_lines
from tests.messages import raises
from tuneyard.core.errors import ContentError, RequestError
from tuneyard.eval.compare.__main__ import cli as compare
from tuneyard.eval.data.dataset import read_datasets
from tuneyard.eval.figures.preference import preference_summary
from tuneyard.eval.preference import cli, read_marks, read_rejected

PAIRS = [
    {"instruction": "2 + 2?", "input": "", "chosen": "4", "rejected": "five, I think"},
    {"instruction": "Name a colour.", "input": "in English", "chosen": "red", "rejected": "rot"},
    {"instruction": "Name a river.", "chosen": "The Rhine.", "rejected": "A river."},
]
ASK = {"from": "human", "value": "Hi"}
TALK = {
    "conversations": [ASK, {"from": "gpt", "value": "Hello."}, {"from": "human", "value": "2 + 2?"}],
    "chosen": {"from": "gpt", "value": "4"},
    "rejected": {"from": "gpt", "value": "5"},
}


@pytest.fixture
def pairs_file(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.jsonl"
    write_lines(path, [*PAIRS, TALK])
    return path


def ask(model: Path, data: Path, out: Path, *more: object) -> None:
    given = ["--model", model, "--data", data, "--out", out, "--dtype", "fp32", *more]
    call(cli, *given)


def read(out: Path, model: str) -> tuple[list[dict], dict]:
    place = out / model / "pairs"
    return predictions(place), results(place)


def test_log_probabilities_are_those_of_a_plain_loop(pairs_file, tmp_path, tiny_model, model, capsys):
    ask(tiny_model, pairs_file, tmp_path / "out")
    rows, found = read(tmp_path / "out", "base")
    asked = ["2 + 2?", "Name a colour.\nin English", "Name a river."]
    talks = [[{"role": "user", "content": text}] for text in asked]
    names = {"human": "user", "gpt": "assistant"}
    talks.append([{"role": names[t["from"]], "content": t["value"]} for t in TALK["conversations"]])
    for row, messages in zip(rows, talks, strict=True):
        for side in ("chosen", "rejected"):
            value, tokens = answer_logp(model, messages, row[side])
            assert row[f"{side}_logp"] == pytest.approx(value, abs=1e-4)
            assert row[f"{side}_tokens"] == tokens
    right = [row["chosen_logp"] > row["rejected_logp"] for row in rows]
    assert found["accuracy"] == sum(right) / 4 and found["reward"] is None
    assert [row["predicted_output"] == "chosen" for row in rows] == right
    assert re.search(r"per token \S+% \[.+?\] of 4 ", capsys.readouterr().out)


def test_an_adapter_is_held_against_the_base_and_runs_pair_up(pairs_file, tmp_path, tiny_model):
    adapter = write_adapter(tmp_path / "dpo")
    ask(tiny_model, pairs_file, tmp_path / "out", "--adapter", f"dpo={adapter}")
    base, own = (read(tmp_path / "out", name)[0] for name in ("base", "dpo"))
    gained = [
        new["chosen_logp"] - new["rejected_logp"] > old["chosen_logp"] - old["rejected_logp"]
        for old, new in zip(base, own, strict=True)
    ]
    assert read(tmp_path / "out", "dpo")[1]["reward"]["value"] == sum(gained) / 4
    call(compare, tmp_path / "out", "--out", tmp_path / "t")
    table = read_json(tmp_path / "t/table.json")["datasets"]["pairs"]
    assert table["n"] == 4 and table["comparisons"][0]["model"] == "dpo"


def test_a_pair_that_the_context_cannot_hold_is_refused_and_counts_as_wrong(tmp_path, tiny_model):
    path = tmp_path / "pairs.jsonl"
    write_lines(path, [PAIRS[0], {**PAIRS[2], "rejected": "word " * 9000}])
    ask(tiny_model, path, tmp_path / "out")
    rows, found = read(tmp_path / "out", "base")
    assert "exceed the context" in rows[1]["too_long"] and found["too_long"] == 1
    assert found["accuracy"] in (0, 0.5) and found["per_token"]["n"] == 1


def test_figures_by_hand():
    def row(number, chosen, rejected, tokens=(1, 1)):
        side = "chosen" if chosen > rejected else "rejected"
        return {
            "row": number, "chosen_logp": chosen, "rejected_logp": rejected, "chosen_tokens": tokens[0],
            "rejected_tokens": tokens[1], "expected_output": "chosen", "predicted_output": side,
        }  # fmt: skip

    rows = [row(0, -2, -3), row(1, -4, -3, (4, 1)), row(2, -1, -9)]
    found = preference_summary(rows, [row(0, -2, -2), row(1, -9, -3), row(2, -1, -10)])
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["per_token"]["value"] == 1  # -4 / 4 is likelier than -3
    assert found["margin"]["value"] == pytest.approx((1 - 1 + 8) / 3)
    assert found["reward"]["value"] == pytest.approx(2 / 3)  # 1 > 0, -1 > -6, 8 < 9
    assert math.isfinite(found["margin"]["stderr"])
    half = preference_summary(rows, [row(0, -2, -2), {"row": 1, "too_long": "too long"}, row(2, -1, -10)])
    assert (half["reward"]["n"], half["reward"]["value"]) == (
        2,
        0.5,
    )  # the second has no base


@pytest.mark.parametrize(
    ("row", "facts"),
    [
        ({"instruction": "a", "chosen": "b"}, "record 1; rejected"),
        ({"instruction": "a", "chosen": [1], "rejected": "c"}, "record 1; chosen; [1]"),
        ({"instruction": "a", "chosen": "b", "rejected": "b"}, "record 1"),
    ],
)
def test_what_is_no_pair_is_named(tmp_path, row, facts):
    path = tmp_path / "pairs.jsonl"
    write_json(path, row)
    with raises(ContentError, facts):
        read_rejected(*read_datasets((), (path,)))


def test_a_column_without_an_answer_is_named_as_the_entry_names_it(tmp_path):
    entry = {
        "file_name": "a.json",
        "ranking": True,
        "columns": {"prompt": "q", "chosen": "up", "rejected": "down"},
    }
    write_json(tmp_path / "dataset_info.json", {"a": entry})
    (tmp_path / "a.json").write_text('[{"q": "a", "up": "b"}]')
    with raises(ContentError, "record 1", "down"):
        read_rejected(*read_datasets(("a",), (), folder=tmp_path))


def test_a_dataset_without_ranking_and_a_server_are_refused(tmp_path, tiny_model, pairs_file):
    (tmp_path / "dataset_info.json").write_text('{"qa": {"file_name": "qa.json"}}')
    (tmp_path / "qa.json").write_text('[{"instruction": "a", "output": "b"}]')
    with raises(RequestError, "qa", "ranking", "kto_tag"):
        folders = ["--dataset-dir", tmp_path, "--out", tmp_path / "out"]
        call(cli, "--model", tiny_model, "--dataset", "qa", *folders)
    with raises(RequestError, "eval.preference"):
        ask(tiny_model, pairs_file, tmp_path / "out", "--backend", "openai", "--url", "http://localhost:9")


MARKED = [
    {"instruction": "2 + 2?", "output": "4", "kto_tag": True},
    {"instruction": "2 + 2?", "output": "five, I think", "kto_tag": False},
    {"instruction": "Name a colour.", "input": "in English", "output": "red", "kto_tag": True},
    {"instruction": "Name a river.", "output": "A river.", "kto_tag": False},
]


def write(path: Path, rows: list[dict]) -> Path:
    write_lines(path, rows)
    return path


def test_marked_answers_are_told_apart_by_their_likelihood(tmp_path, tiny_model, model, capsys):
    from sklearn.metrics import roc_auc_score

    data = write(tmp_path / "pairs.jsonl", MARKED)
    adapter = write_adapter(tmp_path / "kto")
    ask(tiny_model, data, tmp_path / "out", "--adapter", f"kto={adapter}")
    base, found = read(tmp_path / "out", "base")
    own, against = read(tmp_path / "out", "kto")
    marks = [row["kto_tag"] for row in MARKED]
    for row, given in zip(base, MARKED, strict=True):
        asked = given["instruction"] + ("\nin English" if "input" in given else "")
        value, tokens = answer_logp(model, [{"role": "user", "content": asked}], given["output"])
        assert row["answer_logp"] == pytest.approx(value, abs=1e-4) and row["answer_tokens"] == tokens
    each = [row["answer_logp"] / row["answer_tokens"] for row in base]
    assert found["auc"]["value"] == pytest.approx(roc_auc_score(marks, each)) and found["reward_auc"] is None
    gained = [new["answer_logp"] - old["answer_logp"] for old, new in zip(base, own, strict=True)]
    assert against["reward_auc"]["value"] == pytest.approx(roc_auc_score(marks, gained))
    assert (found["n"], found["desirable"]) == (4, 2)
    assert "AUC against the base" in capsys.readouterr().out
    arguments = [tmp_path / "out", "--metric", "auc", "--out", tmp_path / "t"]
    call(compare, *arguments)
    (section,) = read_json(tmp_path / "t/table.json")["datasets"].values()
    assert section["models"]["base"]["value"] == pytest.approx(found["auc"]["value"])


@pytest.mark.parametrize(
    ("row", "facts"),
    [
        ({"kto_tag": True}, "kto_tag; AUC"),
        ({"kto_tag": "no"}, "no; record 5; kto_tag"),
    ],
)
def test_marks_that_cannot_be_scored_are_named(tmp_path, row, facts):
    rows = [*(MARKED if row["kto_tag"] == "no" else MARKED[:1]), {**MARKED[0], **row}]
    with raises(ContentError, facts):
        read_marks(*read_datasets((), (write(tmp_path / "a.jsonl", rows),)), "kto_tag")


def test_pairs_and_marked_answers_are_not_scored_in_one_run(tmp_path, tiny_model, pairs_file):
    with raises(RequestError, "marks"):
        ask(tiny_model, pairs_file, tmp_path / "out", "--data", write(tmp_path / "marks.jsonl", MARKED))
