"""Thoughts cut out of a stream wherever its pieces are cut, and what is given to generate."""

import itertools
import shutil
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.json_files import read_json, write_json
from tests.messages import raises
from tuneyard.core.errors import ContentError
from tuneyard.eval.figures.answers import cut_thought
from tuneyard.eval.models.generate import (
    choose_sampling,
    decode_answer,
    draw,
    drawing,
    generate,
    stream,
    without_thoughts,
)
from tuneyard.eval.models.load import load_model

GREEDY = {"temperature": 0.0, "top_p": 0.9, "repetition_penalty": 1.0}
HOT = {"temperature": 5.0, "top_p": 1.0}


def through(pieces) -> str:
    """What is shown of pieces in the end; nothing that was shown before is taken back."""
    texts = ["".join(pieces[: n + 1]) for n in range(len(pieces))]
    shown = [*map(without_thoughts, texts), without_thoughts("".join(pieces), ended=True)]
    assert all(after.startswith(before) for before, after in itertools.pairwise(shown))
    return shown[-1]


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
    assert [without_thoughts(text) for text in ("  a b", "  a b <", "  a b <c")] == ["a b", "a b ", "a b <c"]
    assert without_thoughts("a <thin") == "a " != without_thoughts("a <thin", ended=True)


@pytest.fixture
def shipped(tiny_model, tmp_path):
    """The tiny model with a generation_config.json of these settings."""

    def make(**settings: object):
        folder = shutil.copytree(tiny_model, tmp_path / "shipped", dirs_exist_ok=True)
        write_json(folder / "generation_config.json", settings)
        return load_model(folder, "fp32")

    return make


QWEN = {"do_sample": True, "temperature": 0.7, "top_p": 0.8, "top_k": 20, "repetition_penalty": 1.05}
DOCUMENT = {"temperature": 0.8, "top_p": 0.9, "repetition_penalty": 1.3, "no_repeat_ngram_size": 3}


@pytest.mark.parametrize(
    ("own", "preset", "given", "expected"),
    [
        ({}, None, {}, {"do_sample": False}),
        ({"temperature": 0.7, "top_k": 20}, None, {}, {"do_sample": False}),
        (QWEN, None, {}, QWEN),
        ({"do_sample": True}, None, {}, {"do_sample": True, "temperature": 1.0}),
        (QWEN, None, {"temperature": 0.0}, {"do_sample": False, "repetition_penalty": 1.05}),
        (QWEN, None, {"top_p": 0.5, "temperature": None}, {**QWEN, "top_p": 0.5}),
        ({}, None, {"temperature": 0.3}, {"do_sample": True, "temperature": 0.3}),
        (QWEN, "document", {}, {"do_sample": True, **DOCUMENT}),
        (
            {},
            "document",
            {"repetition_penalty": 1.0},
            {"do_sample": True, **DOCUMENT, "repetition_penalty": 1.0},
        ),
    ],
)
def test_the_models_own_settings_hold_unless_others_are_given(shipped, own, preset, given, expected) -> None:
    assert drawing(choose_sampling(shipped(**own), preset, given)) == expected


def test_the_pieces_are_the_answer(model) -> None:

    prompt = model.tokenizer("A man is walking a dog.")["input_ids"]
    pieces = []
    stream(model, prompt, 8, GREEDY, pieces.append)
    assert "".join(pieces) == generate(model, [prompt], 8)[0].text


@pytest.mark.parametrize(
    "code", ["if a != b :\n    x = [1 , 2]", 'print("it \'s" , x . y)', "do n't ! ? .", "f( a ) ; g ' m"]
)
def test_answers_keep_their_spaces_whatever_the_tokenizer_cleans_up(
    tiny_model, monkeypatch, tmp_path, code
) -> None:
    import torch

    folder = shutil.copytree(tiny_model, tmp_path / "cleaning")
    path = folder / "tokenizer_config.json"
    write_json(path, read_json(path) | {"clean_up_tokenization_spaces": True})
    model = load_model(folder, "fp32")
    assert model.tokenizer.clean_up_tokenization_spaces
    prompt = model.tokenizer("Write code.")["input_ids"]
    answer = torch.tensor([model.tokenizer.encode(code, add_special_tokens=False)])

    def answering(input_ids: torch.Tensor, streamer: object = None, **_: object) -> torch.Tensor:
        """Give these tokens to both ways, as a model would that wrote them."""
        if streamer is not None:
            streamer.put(input_ids)
            for token in answer[0]:
                streamer.put(token[None])
            streamer.end()
        return torch.cat([input_ids, answer], dim=1)

    monkeypatch.setattr(model.net, "generate", answering)
    assert generate(model, [prompt], 64)[0].text == code
    pieces: list[str] = []
    stream(model, prompt, 64, GREEDY, pieces.append)
    assert "".join(pieces) == code


def test_sampling_reaches_the_model(model) -> None:
    prompt = model.tokenizer("A man is walking a dog.")["input_ids"]
    told = []
    for _ in range(4):
        pieces = []
        stream(model, prompt, 48, HOT, pieces.append)
        told.append("".join(pieces))
        assert len(list(filter(None, pieces))) > 1
    assert len(set(told)) > 1


def test_probabilities_that_are_no_numbers(tiny_model) -> None:
    broken = load_model(tiny_model, "fp32")
    broken.net.model.norm.weight.fill_(float("nan"))
    with raises(ContentError, "numbers", "--dtype fp32"):
        stream(broken, [5, 6], 4, {"temperature": 1.0}, lambda _: None)


def test_answers_are_drawn_as_the_model_ships_and_alike_in_every_run(shipped) -> None:
    import torch

    hot = shipped(do_sample=True, temperature=3.0, top_p=0.95, top_k=40)
    prompts = [hot.tokenizer(text)["input_ids"] for text in ("A dog?", "A cat?", "A man is walking")]
    sampled = [draw(hot, prompt, 12, hot.sampling) for prompt in prompts]
    torch.manual_seed(1)  # whatever was drawn before
    assert [draw(hot, prompt, 12, hot.sampling) for prompt in reversed(prompts)] == sampled[::-1]
    assert sampled != [answer.text for answer in generate(hot, prompts, 12)]
    assert len(set(sampled)) == 3
    # temperature near 0 is greedy: the settings reach the drawing
    assert [draw(hot, p, 12, {**hot.sampling, "temperature": 1e-4}) for p in prompts] == [
        generate(hot, [p], 12)[0].text for p in prompts
    ]


def test_marks_of_calls_that_are_special_tokens_stay_in_answers_with_tools(tiny_model) -> None:
    model = load_model(tiny_model, "fp32")
    model.tokenizer.add_special_tokens({"additional_special_tokens": ["<|tool_call_start|>"]})
    ids = model.tokenizer("<|tool_call_start|>[f()]", add_special_tokens=False)["input_ids"]
    assert decode_answer(model, ids) == "[f()]"
    assert decode_answer(replace(model, special_tokens=True), ids) == "<|tool_call_start|>[f()]"
