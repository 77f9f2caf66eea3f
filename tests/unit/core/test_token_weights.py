"""Rules laid over tokens: spans by hand, every mistake in a weights file named."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import ROOT
from tests.messages import raises
from tuneyard.core.errors import ContentError
from tuneyard.core.llamafactory.prompt.token_texts import INCOMPLETE, TokenTexts
from tuneyard.core.llamafactory.prompt.token_weights import (
    TokenWeights,
    read_weights,
    token_spans,
    weights_file,
)


def read(folder: Path, text: str) -> TokenWeights:
    path = folder / "w.yaml"
    path.write_text(text)
    return read_weights(path)


def characters(ids: list[int]) -> str:
    return "".join(map(chr, ids))


def bytewise(ids: list[int]) -> str:
    return bytes(ids).decode(errors="replace")


def weigh(weights: TokenWeights, text: str) -> dict[float, str]:
    """Group the characters of a text by their weight, one token a character."""
    found: dict[float, str] = {}
    for character, weight in zip(text, weights.of_answer([ord(c) for c in text], characters), strict=True):
        found[weight] = found.get(weight, "") + character
    return found


@pytest.mark.parametrize(
    ("rules", "text", "weighed"),
    [
        ("rules: [{words: ['no', not, 'yes'], weight: 3}]", "no, not know", {3.0: "nonot", 1.0: ",  know"}),
        (
            "default: 0.5\nrules: [{regex: 'answer: (\\w+)', weight: 2}]",
            "the answer: yes.",
            {0.5: "the answer: .", 2.0: "yes"},
        ),
        ('rules: [{field: b, in: "{a} so {b}", weight: 4}]', "x so y so z", {1.0: "x so ", 4.0: "y so z"}),
    ],
)
def test_whole_words_the_group_of_a_regex_and_a_field_are_weighed(tmp_path, rules, text, weighed):
    assert weigh(read(tmp_path, rules), text) == weighed


@pytest.mark.parametrize("recipe", ["defect-lora", "defect-full"])
def test_a_field_of_the_template(recipe: str) -> None:
    weights = read_weights(ROOT / f"recipes/weights/{recipe}.yaml")
    assert weigh(weights, "判断:网络设备\n\n原因：判断:无") == {
        1.0: "判断:\n\n原因：判断:无",
        5.0: "网络设备",
    }


def test_the_last_rule_counts(tmp_path):
    weights = read(tmp_path, "rules: [{regex: a+, weight: 2}, {regex: ab, weight: 9}]")
    assert weights.of_answer([ord(c) for c in "aaab"], characters) == [2.0, 2.0, 9.0, 9.0]


def test_a_token_counts_that_shares_a_character(tmp_path):
    pieces = ["判断", ":网", "络", "。"]
    weights = read(tmp_path, "rules: [{regex: ':(.+)。', weight: 5}]")
    assert weights.of_answer([0, 1, 2, 3], lambda ids: "".join(pieces[i] for i in ids)) == [
        1.0,
        5.0,
        5.0,
        1.0,
    ]


def test_parts_of_one_character_weigh_the_same(tmp_path):
    weights = read(tmp_path, "rules: [{regex: 网, weight: 7}]")
    assert weights.of_answer(list("a网b".encode()), bytewise) == [1.0, 7.0, 7.0, 7.0, 1.0]


def test_a_tokenizer_that_drops_the_first_space(tmp_path):
    pieces = ["▁yes", "▁or", "▁no"]

    def decode(ids: list[int]) -> str:
        return "".join(pieces[i] for i in ids).replace("▁", " ").removeprefix(" ")

    weights = read(tmp_path, "rules: [{words: ['no'], weight: 2}]")
    assert weights.of_answer([0, 1, 2], decode) == [1.0, 1.0, 2.0]
    assert "".join(TokenTexts(decode).of([0, 1, 2])) == "yes or no"
    pieces += INCOMPLETE * 17
    parts = TokenTexts(decode).of(list(range(20)))[3:]
    assert parts == [""] * 15 + [INCOMPLETE * 16, INCOMPLETE]  # no character has more than 16 tokens


@given(st.text(max_size=40))
def test_pieces_make_the_text_and_spans_tile_it(text):
    ids = list(text.encode())
    texts = TokenTexts(bytewise).of(ids)
    spans = token_spans(texts)
    assert len(spans) == len(ids)
    assert "".join(texts) == text
    assert {i for first, last in spans for i in range(first, last)} == set(range(len(text)))


def test_every_run_of_learned_tokens_is_an_answer(tmp_path):
    weights = read(tmp_path, "rules: [{regex: '^b', weight: 2}]")
    labels = [-100, ord("b"), ord("b"), -100, -100, ord("b"), ord("c")]
    assert weights.of_labels(labels, characters) == [0.0, 2.0, 1.0, 0.0, 0.0, 2.0, 1.0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "expected a mapping"),
        ("rules: 3", "rules: found 3, expected a list"),
        ("rules: []\nweight: 2", "the file: unknown key 'weight'; the keys are default, rules"),
        ("rules: [5]", "rules.0: found 5, expected a mapping"),
        ("rules: [{regex: a}]", "rules.0: 'weight' is missing"),
        ("rules: [{regex: a, weight: -1}]", "weight: found -1"),
        ("rules: [{regex: a, weight: .inf}]", "weight: found Infinity"),
        ("rules: [{regex: '(', weight: 2}]", "is no regular expression"),
        ("rules: [{regex: a, words: [b], weight: 2}]", "expected weight and one of"),
        ("rules: [{words: [], weight: 2}]", "words: found"),
        ("rules: [{words: [yes, no], weight: 2}]", "a bare yes or no as true or false: write it in quotes"),
        ("rules: [{field: x, in: 'no {y}', weight: 2}]", "expected the answer's template with {x}"),
        (
            "rules: [{regex: a, weight: 2, weigth: 3}]",
            "rules.0: unknown key 'weigth'; did you mean \"weight\"?",
        ),
        ("rules: [", "not YAML"),
        (f"rules: [{{regex: a, weight: {'9' * 400}}}]", "weight: found 999"),
    ],
)
def test_mistakes_are_named(tmp_path, text, message):
    with pytest.raises(ContentError) as caught:
        read(tmp_path, text)
    assert message in str(caught.value)


def test_found_by_the_recipes_name():
    for recipe in ("defect-lora", "defect-full"):
        assert weights_file(ROOT / f"recipes/{recipe}.yaml") == ROOT / f"recipes/weights/{recipe}.yaml"
    assert weights_file(ROOT / "recipes/mnli.yaml") is None


@pytest.mark.parametrize(
    "path", sorted((ROOT / "recipes/weights").glob("*.yaml")), ids=lambda path: path.stem
)
def test_shipped_weights_belong_to_a_recipe(path):
    read_weights(path)
    assert (ROOT / "recipes" / path.name).is_file()


def test_a_rule_that_would_take_for_ever_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr("tuneyard.core.errors.TIME_LIMIT", 0.1)
    weights = read(tmp_path, "rules: [{regex: '(a+)+b', weight: 2}]")
    with raises(ContentError, "(a+)+b", "answer", "0.1"):
        weigh(weights, "a" * 60)
