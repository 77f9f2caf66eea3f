"""Tokens, exact match and token F1 against worked examples, SQuAD's own rule, and properties."""

import re
import string
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneyard.eval.figures.free_answers import commonest, exact_match, token_f1, tokens

SAME = [
    ("The Eiffel Tower", "eiffel tower."),
    ("北京", "“北京”。"),
    ("北京、上海", "北京 上海"),
    ("ＡＢＣ１２３", "abc123"),
    ("1,000", "1000"),
    ("it's", "It’s"),
    ("U.S.A.", "USA"),
    ("−3.5", "-3.5"),
    ("half-time", "half time"),
    ("Vitamin A", "the vitamin a"),
    ("5 %", "5%"),
    ("①", "1"),
]
OTHER = [
    ("-5", "5"),
    ("3.5", "35"),
    ("C++", "C"),
    ("x > 5", "x < 5"),
    ("Vitamin A", "Vitamin"),
    ("A", "The"),
    ("5%", "5"),
    ("北京", "京北"),
    ("?", "!"),
    ("Paris", ""),
    ("हिन्दी", "हन्द"),
]


@pytest.mark.parametrize(("expected", "given"), SAME)
def test_answers_that_say_the_same_match(expected: str, given: str) -> None:
    assert exact_match(expected, given) and exact_match(given, expected)
    assert token_f1(expected, given) == 1


@pytest.mark.parametrize(("expected", "given"), OTHER)
def test_answers_that_say_something_else_do_not(expected: str, given: str) -> None:
    assert not exact_match(expected, given) and not exact_match(given, expected)


def test_tokens_by_hand() -> None:
    assert tokens("The capital, it’s 北京！ (−3.5 %)") == ["capital", "its", "北", "京", "-3.5", "%"]
    assert tokens("qwen2.5 5-3 .5 e.g. snake_case") == ["qwen2.5", "5", "3", ".5", "eg", "snake", "case"]
    assert tokens("カタカナ ひらがな 한국어")[-1] == "한국어" and len(tokens("カタカナ ひらがな 한국어")) == 9
    assert tokens("हिन्दी में") == ["हिन्दी", "में"]  # vowel signs belong to their letters
    assert tokens("") == [] and tokens("?") == ["?"] and tokens(" the ") == ["the"]


@given(st.text(), st.text())
def test_token_f1_is_symmetric_and_1_for_what_matches(one: str, other: str) -> None:
    assert token_f1(one, other) == token_f1(other, one)
    assert token_f1(one, one) == 1 and exact_match(one, one)
    assert 0 <= token_f1(one, other) <= 1
    if exact_match(one, other):
        assert token_f1(one, other) == 1


@given(st.text())
def test_tokens_are_their_own_tokens(text: str) -> None:
    assert bool(tokens(text)) == bool(text.strip())
    if len(tokens(text)) > 1:
        assert set(tokens(" ".join(tokens(text)))) <= set(tokens(text))


WORDS = st.lists(st.sampled_from(["the", "cat", "An", "sat.", "(on)", "mat!", "3"]), min_size=1)


def squad(text: str) -> str:
    """The rule as published: lower case, no punctuation, no articles, single spaces."""
    bare = "".join(c for c in text.lower() if c not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())


@given(WORDS, WORDS)
def test_plain_english_is_judged_as_squad_does(one: list[str], other: list[str]) -> None:
    first, second = f"{' '.join(one)} end", f"{' '.join(other)} end"
    assert exact_match(first, second) == (squad(first) == squad(second))
    left, right = Counter(squad(first).split()), Counter(squad(second).split())
    shared = (left & right).total()
    precision, recall = shared / left.total(), shared / right.total()
    assert token_f1(first, second) == pytest.approx(2 * precision * recall / (precision + recall))


def test_the_commonest_answer_counts_spellings_together() -> None:
    assert commonest(["Yes", "yes.", "no", "YES"]) == 0.75
