"""Choice scores against a plain loop, one full sequence at a time; the plan of batches as properties."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneyard.eval.models.batch_plan import plan_batches
from tuneyard.eval.models.likelihood import LogProbabilities


def one_by_one(model, prompt, spelling):
    """The definition: log-softmax of every position of prompt + spelling, summed over the spelling."""
    import torch

    with torch.no_grad():
        logits = model.net(torch.tensor([[*prompt, *spelling]])).logits[0].log_softmax(-1)
    return sum(logits[len(prompt) - 1 + i, token].item() for i, token in enumerate(spelling))


PROMPTS = {
    0: [7, 8, 9, 10, 11, 12, 13, 14, 15, 20],
    1: [7, 8, 9, 10, 11, 12, 13, 14, 15, 21, 22, 23, 24],
    2: [7, 8, 9, 10, 11, 12, 13, 14, 15, 20, 30],
    7: [7, 8, 9, 10, 11, 12, 13, 14, 15],
}
SPELLINGS = {
    "single tokens": [[40], [41], [42]],
    "one begins another": [[40], [40, 41], [40, 41, 42, 43]],
    "several beginnings": [[40, 41], [40, 42], [50, 51, 52], [60], [61, 62]],
}


@pytest.mark.parametrize("spellings", SPELLINGS.values(), ids=SPELLINGS)
@pytest.mark.parametrize("budget", [1, 25, 10_000])
@pytest.mark.parametrize("prompts", [PROMPTS, {3: [5, 6, 7]}])
def test_scores_equal_the_plain_loop(model, spellings, budget, prompts) -> None:
    batch_plan = LogProbabilities(replace(model, budget=budget), prompts, spellings)
    assert batch_plan.common == (8 if len(prompts) > 1 else 0)
    for batch in batch_plan.batches:
        for row, logs in zip(batch, batch_plan.score(batch), strict=True):
            for spelling in spellings:
                got = sum(logs[tuple(spelling[:end])] for end in range(1, len(spelling) + 1))
                assert got == pytest.approx(one_by_one(model, prompts[row], spelling), abs=2e-5)


def test_the_head_sees_one_contiguous_block(model) -> None:
    seen = []
    handle = model.net.get_output_embeddings().register_forward_hook(lambda _, args, __: seen.append(args[0]))
    LogProbabilities(model, PROMPTS, [[40], [41]]).score([0, 1, 2])
    handle.remove()
    assert [tuple(x.shape) for x in seen] == [(1, 64), (3, 64)]
    assert all(x.is_contiguous() for x in seen)


def test_the_states_of_the_shared_beginning_are_made_while_scoring(model) -> None:
    batch_plan = LogProbabilities(model, PROMPTS, [[40], [41]])
    assert "prefix" not in vars(batch_plan)  # the weights of the candidate are not applied yet
    first = batch_plan.score([0, 1])
    assert batch_plan.prefix[0] == 8
    assert batch_plan.score([0, 1]) == first


@given(st.dictionaries(st.integers(0, 50), st.integers(0, 40), min_size=1), st.integers(1, 100))
def test_a_plan_holds_every_row_once_and_keeps_the_budget(lengths, budget) -> None:
    batches = plan_batches(lengths, budget)
    assert sorted(row for batch in batches for row in batch) == sorted(lengths)
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[row] for row in batch) <= budget
    assert [lengths[b[0]] for b in batches] == sorted((lengths[b[0]] for b in batches), reverse=True)
