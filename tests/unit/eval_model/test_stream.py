"""Thoughts cut out of a stream wherever its pieces are cut, and what is given to generate."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import ContentError
from eval.measure.answers import cut_thought
from eval.model.stream import Sampling, ThoughtFilter, stream

GREEDY = Sampling(
    max_new_tokens=8, temperature=0.0, top_p=0.9, repetition_penalty=1.0, no_repeat_ngram_size=0
)


def through(pieces) -> str:
    thoughts = ThoughtFilter()
    return "".join([*map(thoughts.feed, pieces), thoughts.end()])


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Paris.", "Paris."),
        ("<think>\nhm\n</think>\n\nParis.", "Paris."),
        ("<think></think>Paris <b>", "Paris <b>"),
        ("1 < 2 and <thin", "1 < 2 and <thin"),
        ("<think>never ends", ""),
        ("", ""),
    ],
)
@given(data=st.data())
def test_the_thought_is_cut_wherever_the_pieces_are(text, shown, data) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert through(pieces) == shown
    assert through(pieces).strip() == cut_thought(text)


def test_what_can_be_shown_is_shown_at_once() -> None:
    thoughts = ThoughtFilter()
    assert [thoughts.feed(piece) for piece in ("  a b", " <", "c")] == ["a b", " ", "<c"]


def test_a_temperature_of_0_is_greedy() -> None:
    assert GREEDY.arguments() == {
        "do_sample": False, "max_new_tokens": 8, "repetition_penalty": 1.0, "no_repeat_ngram_size": 0,
    }  # fmt: skip
    drawn = Sampling(8, 0.8, 0.9, 1.3, 3).arguments()
    assert drawn == {
        "do_sample": True, "max_new_tokens": 8, "temperature": 0.8, "top_p": 0.9, "repetition_penalty": 1.3,
        "no_repeat_ngram_size": 3,
    }  # fmt: skip


def test_the_pieces_are_the_answer(model) -> None:
    from eval.model.generate import generate

    prompt = model.tokenizer("A man is walking a dog.")["input_ids"]
    pieces: list[str] = []
    stream(model, prompt, GREEDY, pieces.append)
    assert "".join(pieces) == generate(model, [prompt], 8)[0]


def test_sampling_reaches_the_model(model) -> None:
    prompt = model.tokenizer("A man is walking a dog.")["input_ids"]
    told: list[str] = []
    for _ in range(4):
        pieces: list[str] = []
        stream(model, prompt, Sampling(48, 5.0, 1.0, 1.0, 0), pieces.append)
        told.append("".join(pieces))
        assert len(list(filter(None, pieces))) > 1
    assert len(set(told)) > 1


def test_probabilities_that_are_no_numbers(tiny_model) -> None:
    from eval.model.load import load_model

    broken = load_model(tiny_model, "fp32")
    broken.net.model.norm.weight.fill_(float("nan"))
    with pytest.raises(ContentError, match="probabilities are no numbers: try --dtype fp32"):
        stream(broken, [5, 6], Sampling(4, 1.0, 1.0, 1.0, 0), lambda _: None)
