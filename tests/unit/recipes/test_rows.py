"""Why LLaMA-Factory drops a conversation, in words."""

from types import SimpleNamespace

import pytest

from tests.messages import printed
from tuneyard.core.llamafactory.trained_rows import Epoch, UntrainableEpochError
from tuneyard.recipes.llamafactory import rows
from tuneyard.recipes.llamafactory.rows import Packing, epoch, turn_fault
from tuneyard.recipes.recipe.schedule import packed_batches

SHAREGPT = {
    "messages": "conversations", "system": None, "tools": None, "chosen": None, "rejected": None,
    "content_tag": "value", "role_tag": "from", "user_tag": "human", "assistant_tag": "gpt",
    "observation_tag": "observation", "function_tag": "function_call", "system_tag": "system",
    "formatting": "sharegpt", "ranking": False,
}  # fmt: skip


@pytest.mark.parametrize(
    ("roles", "ranking", "fault"),
    [
        ("gpt human", False, 'turn 1 is "gpt", expected "human" or "observation"'),
        ("system gpt", False, 'turn 2 is "gpt", expected "human" or "observation"'),
        ("human gpt gpt", False, 'turn 3 is "gpt", expected "human" or "observation"'),
        ("human human", False, 'turn 2 is "human", expected "gpt" or "function_call"'),
        ("human gpt human", False, "found 3 turns, expected an even number"),
        ("", False, "found no turns"),
        ("human gpt", True, "found 2 turns, expected an odd number"),
    ],
)
def test_the_turn_at_fault_is_named(roles, ranking, fault):
    row = {"conversations": [{"from": role, "value": "x"} for role in roles.split()]}
    columns = SimpleNamespace(**{**SHAREGPT, "ranking": ranking})
    assert turn_fault(row, columns).startswith(f"conversations: {fault}")


def test_results_of_tools_in_a_row_are_one_turn_in_openai_form():
    roles = ("human", "function_call", "observation", "observation", "human")
    row = {"conversations": [{"from": role, "value": "x"} for role in roles]}
    fault = turn_fault(row, SimpleNamespace(**{**SHAREGPT, "formatting": "openai"}))
    printed(fault, "turn 5", '"human"', '"gpt"', '"function_call"')


@pytest.mark.parametrize(
    ("rows_in_all", "workers", "batch", "sizes"),
    [
        (0, 4, 1000, []),
        (3, 4, 1000, [1, 1, 1]),  # no worker without a row
        (10, 4, 1000, [3, 3, 2, 2]),
        (2000, 1, 1000, [1000, 1000]),
        (2500, 2, 1000, [1000, 250, 1000, 250]),
    ],
)
def test_rows_that_are_packed_at_a_time(rows_in_all, workers, batch, sizes):
    assert packed_batches(rows_in_all, workers, batch) == sizes


def test_the_rest_of_each_batch_of_running_text_is_dropped():
    texts = [[30]] * 10  # 300 tokens
    assert Packing(100, "pt", 1, 1000).blocks(texts) == 3
    assert Packing(100, "pt", 1, 5).blocks(texts) == 2  # 150 and 150
    assert Packing(100, "pt", 4, 1000).blocks(texts) == 0  # 90, 90, 60 and 60
    assert Packing(100, "sft", 4, 1000).blocks(texts) == 4  # filled up


def held_out_last(sets, data_args, _):
    """LLaMA-Factory's split without its shuffle: the last rows are held out."""
    lengths = [row for rows_of_set in sets for row in rows_of_set["lengths"]]
    size = data_args.val_size
    count = int(size) if size > 1 else round(size * len(lengths))
    middle = len(lengths) - count
    held_out = {"validation": {"lengths": lengths[middle:]}} if count else {}
    return Epoch(None, {"lengths": lengths[:middle]}, held_out)


@pytest.mark.parametrize(
    ("changed", "evaluated", "workers", "facts"),
    [
        ({"val_size": 0.01}, {}, 1, ["0.01 holds out 10 rows: 500 tokens", "1024", "val_size: 0.03"]),
        ({"val_size": 0.01}, {}, 4, ["10 rows: 500 tokens", "val_size: 0.1 "]),
        ({"val_size": 40}, {}, 4, ["40 rows: 2,000 tokens in all, packed in 4 batches", "val_size: 160"]),
        ({"val_size": 20, "cutoff_len": 26_000}, {}, 1, ["20 rows", "val_size: 0"]),  # nothing suffices
        ({}, {"a": 10}, 1, ["500 tokens in all fill no block of 1024", "eval_dataset"]),
        ({"eval_on_each_dataset": True}, {"a": 30, "b": 20}, 1, ["1,000 tokens", "no block of 1024"]),
        ({"cutoff_len": 60_000}, {}, 1, ["50,000 tokens in all fill no block of 60000"]),
        ({"cutoff_len": 13_000}, {}, 4, ["packed in 4 batches", "preprocessing_num_workers"]),
        ({"streaming": True, "val_size": 20}, {}, 8, ["20 rows: 1,000 tokens in all fill no block"]),
    ],
)  # fmt: skip
def test_too_few_texts_for_a_packed_block(monkeypatch, changed, evaluated, workers, facts):
    """A thousand texts of 50 tokens."""
    monkeypatch.setattr(rows, "mixed_and_split", held_out_last)
    settings = {
        "cutoff_len": 1024, "packing": True, "val_size": 0.0, "preprocessing_batch_size": 1000,
        "streaming": False, "eval_on_each_dataset": False, "seed": 1, **changed,
    }  # fmt: skip
    arguments = SimpleNamespace(**settings)
    reader = SimpleNamespace(data_args=arguments, training_args=arguments, stage="pt")
    evaluations = {name: [[50]] * count for name, count in evaluated.items()}
    with pytest.raises(UntrainableEpochError) as raised:
        epoch(reader, {"text": [[50]] * 1000}, evaluations, workers)
    printed(str(raised.value), *facts)
    key = "eval_dataset" if evaluated else "val_size"
    assert (key in raised.value.keys) == bool(evaluated or settings["val_size"])


def test_two_small_evaluations_fill_a_block_together(monkeypatch):
    monkeypatch.setattr(rows, "mixed_and_split", held_out_last)
    arguments = SimpleNamespace(
        cutoff_len=1024, packing=True, val_size=0, preprocessing_batch_size=1000, streaming=False,
        eval_on_each_dataset=False, seed=1,
    )  # fmt: skip
    reader = SimpleNamespace(data_args=arguments, training_args=arguments, stage="pt")
    evaluations = {"a": [[50]] * 15, "b": [[50]] * 15}
    assert epoch(reader, {"text": [[50]] * 1000}, evaluations, 1).rows == 48  # 50,000 / 1,024 = 48.8
