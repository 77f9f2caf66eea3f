"""Asking: what is refused, what is summed, and what happens when the memory does not hold a batch."""

from dataclasses import replace
from functools import partial

import pytest

from tests.messages import raises
from tuneyard.core.errors import ContentError, RequestError
from tuneyard.core.llamafactory.prompt import chat_renderer, prompt_ids
from tuneyard.eval.models.batch_plan import generating, prompts_too_long, score_in_halves, tokenise

PROMPTS = {0: [5, 6, 7], 1: [5, 6, 7, 8], 2: [9, 9]}


def test_labels_that_share_a_spelling_are_refused(model) -> None:
    with raises(RequestError, "Yes", "yes", "--variants"):
        tokenise(model.tokenizer, [], {"yes": ["yes", "Yes"], "Yes": ["Yes"]})


def test_where_one_label_begins_another_the_end_decides(model) -> None:
    """Without the end of the answer the longer label could never win."""
    import torch

    asked = [model.tokenizer(text)["input_ids"] for text in ("A man is walking a dog.", "entailment")]
    labels = {text: [text] for text in ("no", "no maybe")}
    asker = replace(model, budget=100).choosing(dict(enumerate(asked)), labels)
    passes = []
    handle = model.net.register_forward_hook(lambda *_: passes.append(1))
    fields = asker.score([0, 1])
    handle.remove()
    assert len(passes) == 1  # the shorter label's end is read where the longer one goes on
    for prompt, found in zip(asked, fields, strict=True):
        assert 0 <= found["label_mass"] <= 1
        for label in labels:
            answer = [*model.tokenizer(label)["input_ids"], model.tokenizer.eos_token_id]
            with torch.no_grad():
                logits = model.net(torch.tensor([[*prompt, *answer]])).logits[0].log_softmax(-1)
            each = [logits[len(prompt) - 1 + i, token].item() for i, token in enumerate(answer)]
            assert found["choices"][label] == pytest.approx(sum(each), abs=1e-4)


def test_labels_of_which_none_begins_another_are_not_ended(model) -> None:
    forms = tokenise(model.tokenizer, [], {"yes": ["yes"], "no": ["no"]})
    assert forms == {text: [tuple(model.tokenizer(text)["input_ids"])] for text in ("yes", "no")}


def test_prompts_are_refused_to_the_token() -> None:
    assert list(prompts_too_long({0: [1] * 7, 1: [1] * 8}, 3, 10)) == [1]
    with raises(ContentError, "8 tokens", "fits", "3"):
        prompts_too_long({1: [1] * 8}, 3, 10)


class Full:
    """Stands for a device that holds two rows and no more."""

    def __init__(self, error: RuntimeError) -> None:
        self.error = error
        self.sizes: list[int] = []

    def score(self, batch):
        self.sizes.append(len(batch))
        if len(batch) > 2:
            raise self.error
        return [{"row": row} for row in batch]


def test_a_batch_is_halved_until_the_memory_holds_it() -> None:
    import torch

    for error in (torch.OutOfMemoryError("CUDA"), RuntimeError("DefaultCPUAllocator: can't allocate memory")):
        full = Full(error)
        assert score_in_halves(full, list(range(7))) == [{"row": row} for row in range(7)]
        assert full.sizes == [7, 3, 1, 2, 4, 2, 2]


def test_other_errors_are_not_taken_for_memory() -> None:
    with pytest.raises(RuntimeError, match="device-side assert"):
        score_in_halves(Full(RuntimeError("device-side assert")), [1, 2, 3])


def test_greedy_generation_does_not_depend_on_the_batch(model) -> None:
    talks = {row: [{"role": "user", "content": text}] for row, text in enumerate(["yes", "no, maybe", "a"])}
    encode = partial(prompt_ids, model.tokenizer, chat_renderer(model.tokenizer, None))
    together = generating(model, talks, encode, 6).score([0, 1, 2])
    assert together == [generating(model, talks, encode, 6).score([row])[0] for row in talks]
    assert len({fields["model_output"] for fields in together}) > 1


@pytest.mark.parametrize(
    "template", ["<think>", "{% if not enable_thinking %}<think>\n\n</think>{% endif %}"]
)
def test_thinking_is_off_unless_asked_for(model, template) -> None:
    template = "{{ messages[0]['content'] }}" + template
    talk = [{"role": "user", "content": "Q"}]
    assert chat_renderer(model.tokenizer, template)(talk, True).rstrip().endswith("</think>")
    assert "</think>" not in chat_renderer(model.tokenizer, template, think=True)(talk, True)
