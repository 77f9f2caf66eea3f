"""Where a conversation is cut, by hand; integration tests hold it against LLaMA-Factory."""

import pytest

from tuneyard.core.llamafactory.prompt.supervision import (
    IGNORED,
    EncodedConversation,
    SupervisedText,
    chat_turns,
    supervise,
    supervise_text,
)


def turn(asked: int, answered: int) -> tuple[list[int], list[int]]:
    return list(range(100, 100 + asked)), list(range(200, 200 + answered))


@pytest.mark.parametrize(
    ("asked", "answered", "cutoff", "kept"),
    [
        (5, 3, 8, (5, 3)),  # all of it
        (10, 3, 8, (5, 3)),  # an answer below half of the room stays whole
        (10, 4, 8, (6, 2)),  # one of half of it does not: both by their share
        (3, 10, 8, (3, 5)),  # a question below half of the room stays whole
        (4, 10, 8, (3, 5)),  # one of half of it does not
        (10, 10, 8, (4, 4)),
        (10, 10, 1, (1, 0)),
    ],
)
def test_the_shorter_of_question_and_answer_stays_whole_below_half_of_the_room(asked, answered, cutoff, kept):
    source, target = turn(asked, answered)
    supervised = supervise(EncodedConversation([(source, target)]), cutoff)
    assert supervised.ids == source[: kept[0]] + target[: kept[1]]
    assert supervised.labels == [IGNORED] * kept[0] + target[: kept[1]]
    assert supervised.length == asked + answered and supervised.cut == (asked + answered > cutoff)


def test_turns_beyond_the_cut_are_left_out():
    one, other = turn(3, 5), turn(2, 2)
    assert supervise(EncodedConversation([one, other]), 8).ids == one[0] + one[1]
    assert supervise(EncodedConversation([one, other]), 12).ids == [*one[0], *one[1], *other[0], *other[1]]


def test_a_stop_of_the_template_is_learned_after_every_answer():
    one, other = turn(2, 2), turn(3, 1)
    supervised = supervise(EncodedConversation([one, other], stop=9), 20)
    assert supervised.ids == [*one[0], *one[1], *other[0], *other[1], 9]
    assert supervised.labels == [IGNORED, IGNORED, *one[1], 9, IGNORED, IGNORED, *other[1], 9]
    assert supervised.length == 9 and not supervised.cut


def test_the_first_token_is_never_learned_since_nothing_stands_before_it():
    assert SupervisedText([1, 2, 3], [1, IGNORED, 3], 3).learned == [2]


@pytest.mark.parametrize(
    ("begins", "cutoff", "kept"), [(True, 9, "<ab>"), (True, 3, "<ab"), (False, 9, "ab>")]
)
def test_a_text_is_learned_whole_up_to_the_cut(begins, cutoff, kept):
    class Letters:
        bos_token, eos_token, add_bos_token = "<", ">", begins

        def __call__(self, text, add_special_tokens):
            return {"input_ids": [*([0] if add_special_tokens else []), *map(ord, text)]}

    supervised = supervise_text(Letters(), "ab", cutoff)
    assert supervised.ids == supervised.labels == list(map(ord, kept))
    assert supervised.length == 3 + begins and supervised.cut == (cutoff == 3)


def test_the_chat_template_alone_says_where_a_text_begins():
    """A tokenizer that puts a token of its own before each text must not do so before each turn."""

    def tokenizer(text, add_special_tokens):
        return {"input_ids": [*([0] if add_special_tokens else []), *map(ord, text)]}

    def render(messages, asks):
        return "".join(message["content"] for message in messages) + ">" * asks

    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": ">a"}]
    assert chat_turns(tokenizer, render, messages).pairs == [([ord("q"), ord(">")], [ord("a")])]
