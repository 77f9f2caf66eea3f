"""Losses of given texts against a plain loop over single rows and against torch's own cross-entropy."""

import pytest

from tuneyard.core.llamafactory.prompt.supervision import IGNORED, SupervisedText
from tuneyard.eval.models import likelihood
from tuneyard.eval.models.likelihood import token_losses

I = IGNORED  # noqa: E741
LESSONS = {
    0: SupervisedText([7, 8, 9, 10, 11], [I, I, 9, 10, 11], 5),
    3: SupervisedText([7, 8, 9, 10, 11, 12, 13, 14, 40, 41], [I, I, I, 10, 11, I, I, I, 40, 41], 12),
    4: SupervisedText([20, 21], [I, I], 2),
    8: SupervisedText([30, 31, 32, 33], [30, 31, 32, 33], 4),
}


def losses(model, texts, budget: int) -> dict[int, float]:
    """The sum over the loss tokens of each row."""
    return {row: sum(by_token) for row, by_token in token_losses(model, texts, budget).items()}


def one_by_one(model, supervised: SupervisedText) -> float:
    """The definition: -log softmax at i - 1 of the token at i, summed in fp64 over the labels."""
    import torch

    with torch.no_grad():
        logs = model.net(torch.tensor([supervised.ids])).logits[0].double().log_softmax(-1)
    places = [i for i, label in enumerate(supervised.labels) if i > 0 and label != I]
    return -sum(logs[i - 1, supervised.labels[i]].item() for i in places)


@pytest.mark.parametrize("most", [1, 5, 10_000])
@pytest.mark.parametrize("budget", [1, 12, 10_000])
def test_losses_equal_the_plain_loop(model, monkeypatch, budget, most) -> None:
    monkeypatch.setattr(likelihood, "LOGITS", most * model.net.config.vocab_size)
    found = losses(model, LESSONS, budget)
    assert found[4] == 0
    assert found == pytest.approx({row: one_by_one(model, x) for row, x in LESSONS.items()}, abs=1e-5)


def test_the_head_sees_the_learned_positions_alone(model) -> None:
    seen = []
    handle = model.net.get_output_embeddings().register_forward_hook(lambda _, args, __: seen.append(args[0]))
    losses(model, LESSONS, 10_000)
    handle.remove()
    assert [tuple(x.shape) for x in seen] == [(3 + 4 + 3, 64)]
    assert not model.net.get_output_embeddings()._forward_pre_hooks


def test_nothing_learned_needs_no_model(model) -> None:
    assert losses(model, {4: LESSONS[4]}, 10) == {4: 0.0}
