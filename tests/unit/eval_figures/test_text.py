"""Measures of generated texts against hand computations, other libraries, and properties."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuneyard.eval.figures.text import bleu, distinct, ngrams, rouge, words

CHINESE = ["模型在训练集上过拟合了。", "该设备的电源模块损坏,需要更换。"]
SAID = ["模型在训练集上出现过拟合。", "电源模块坏了,应当更换设备的电源。"]
ENGLISH = ["The cat sat on the mat.", "It is raining outside, isn't it?"]
HEARD = ["The cat is on the mat.", "It's raining outside today."]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The cat's  e-mail_2", ["the", "cat", "s", "e", "mail", "2"]),
        ("用LoRA微调7B模型。", ["用", "lora", "微", "调", "7b", "模", "型"]),
        ("Ça été über", ["ça", "été", "über"]),
        ("カタカナ と ひらがな", [*"カタカナ", "と", *"ひらがな"]),
        ("안녕 세상", ["안녕", "세상"]),
        ("𠀀𠀁!?，。", ["𠀀", "𠀁"]),
        (" \n", []),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("किताब कीमत", ["किताब", "कीमत"]),
        ("தமிழ் மொழி", ["தமிழ்", "மொழி"]),
        ("שָׁלוֹם", ["ש\u05b8\u05c1לו\u05b9ם"]),
        ("cafe\u0301", ["caf\u00e9"]),
        ("می\u200cروم", ["می\u200cروم"]),
        ("ภาษาไทย", [*"ภาษาไทย"]),
        ("น้ำ ที่", ["น้", "ำ", "ที่"]),
        ("👍\ufe0f", []),
    ],
)
def test_words_are_words_and_chinese_characters(text, expected) -> None:
    assert words(text) == expected


def test_distinct_counts_over_all_texts_and_never_across_two() -> None:
    texts = ["a b a", "a b 好好"]  # a b a | a b 好 好: 3 of 7 words, 4 of 5 pairs differ
    assert distinct(texts, 1) == 3 / 7
    assert distinct(texts, 2) == 4 / 5
    assert distinct(["", "a"], 2) == 0.0
    assert ngrams("abcd", 3) == [("a", "b", "c"), ("b", "c", "d")]


@pytest.mark.slow  # rouge-score imports nltk, 5 s
class TestRouge:
    def test_values_worked_out_by_hand(self) -> None:
        found = rouge(["the cat sat on the mat", "模型过拟合"], ["the cat is on the mat", "模型拟合过"])
        # 5 of 6 words; 3 of 5 pairs; the cat · on the mat: 5 of 6
        # 5 of 5 characters; 模型 and 拟合: 2 of 4 pairs; 模型拟合: 4 of 5
        assert found["rouge1"] == pytest.approx([5 / 6, 1])
        assert found["rouge2"] == pytest.approx([3 / 5, 2 / 4])
        assert found["rougeL"] == pytest.approx([5 / 6, 4 / 5])

    def test_plain_english_scores_as_with_its_own_tokenizer(self) -> None:
        from rouge_score.rouge_scorer import RougeScorer

        own = RougeScorer(["rouge1", "rouge2", "rougeL"])
        found = rouge(ENGLISH, HEARD)
        for row, pair in enumerate(zip(ENGLISH, HEARD, strict=True)):
            expected = {name: score.fmeasure for name, score in own.score(*pair).items()}
            assert {name: values[row] for name, values in found.items()} == expected

    def test_words_that_differ_by_a_mark_differ(self) -> None:
        pairs = [("की", "को"), ("मैं", "में"), ("שָׁם", "שֵׁם")]  # two words each
        assert rouge(*map(list, zip(*pairs, strict=True)))["rouge1"] == [0, 0, 0]
        assert rouge(["e\u0301te\u0301"], ["\u00e9t\u00e9"])["rougeL"] == [1]

    def test_chinese_is_not_dropped(self) -> None:
        assert min(rouge(CHINESE, SAID)["rougeL"]) > 0.3
        assert rouge(CHINESE, CHINESE)["rouge2"] == [1, 1]
        assert rouge(["", "a"], ["a", ""])["rouge1"] == [0, 0]


@pytest.mark.parametrize(("texts", "said", "tokenizer"), [(CHINESE, SAID, "zh"), (ENGLISH, HEARD, "13a")])
def test_bleu_takes_the_tokenizer_of_the_language_and_says_so(texts, said, tokenizer) -> None:
    found, signature = bleu(texts, said, range(2))
    assert f"tok:{tokenizer}|smooth:exp" in signature
    assert bleu(texts, texts, range(2))[0].value == pytest.approx(100)
    low, high = found.ci95
    assert low <= found.value <= high


@pytest.mark.parametrize(
    ("expected", "predicted"),
    [
        (["ありがとうございます"], ["ありがとうございました"]),
        (["สวัสดีครับผม"], ["สวัสดีค่ะฉัน"]),
        (["ສະບາຍດີທ່ານ"], ["ສະບາຍດີເຈົ້າ"]),
        (["ကျေးဇူးတင်ပါတယ်"], ["ကျေးဇူးတင်ပါသည်"]),
    ],
)
def test_bleu_of_scripts_without_spaces_is_sacrebleus_by_characters(expected, predicted) -> None:
    from sacrebleu.metrics import BLEU

    figure, signature = bleu(expected, predicted, range(1))
    own = BLEU(tokenize="char").corpus_score(predicted, [expected]).score
    assert own > 20
    assert figure.value == pytest.approx(own)
    assert "tok:char" in signature


def test_one_foreign_word_does_not_change_the_tokenizer_of_bleu() -> None:
    for texts, tokenizer in ((ENGLISH, "13a"), (CHINESE, "zh")):
        _, signature = bleu([*texts, "ไทย の"], [*texts, "ไทย の"], range(3))
        assert f"tok:{tokenizer}" in signature


def test_composed_and_decomposed_texts_are_equal() -> None:
    from unicodedata import normalize

    for text in ("Ça a été déjà réglé ici", "Tiếng Việt rất là đẹp", "한국어 문장 하나 더 있다"):
        decomposed = normalize("NFD", text)
        assert decomposed != text
        assert words(decomposed) == words(text)
        assert distinct([text, decomposed], 1) == 0.5
        assert bleu([text], [decomposed], range(1))[0].value == pytest.approx(100)


@pytest.mark.slow  # so does nltk itself
def test_bleu_equals_the_definition() -> None:
    """By hand over both pairs: clipped precisions, their geometric mean, the brevity penalty."""
    nltk = pytest.importorskip("nltk.translate.bleu_score")
    latin = ["a b c d e f g", "h i j k l"], ["a b c d e x", "h i j k"], str.split
    for texts, said, split in ((CHINESE, SAID, list), latin):
        theirs = nltk.corpus_bleu([[split(text)] for text in texts], [split(text) for text in said])
        assert bleu(texts, said, range(2))[0].value == pytest.approx(100 * theirs)


def test_bleus_limits_are_the_same_each_time_and_widen_by_group() -> None:
    texts = [f"{a} quick fox jumps over {b}" for a in "abcdef" for b in ("this dog", "that log")]
    said = [text if n % 4 < 2 else "something quite different was said here" for n, text in enumerate(texts)]
    alone, _ = bleu(texts, said, range(12))
    grouped, _ = bleu(texts, said, [n // 2 for n in range(12)])
    assert bleu(texts, said, range(12))[0] == alone
    assert grouped.value == alone.value
    assert grouped.stderr > 1.2 * alone.stderr


def test_bleu_of_rows_that_are_all_alike_is_in_no_doubt() -> None:
    found, _ = bleu(
        ["the quick fox jumps over the dog"] * 9, ["the quick fox jumps over a dog"] * 9, range(9)
    )
    assert found.ci95 == (pytest.approx(found.value), pytest.approx(found.value))
    assert found.stderr == pytest.approx(0)


@settings(max_examples=10)
@given(st.lists(st.text("ab 好,", max_size=8), min_size=2, max_size=5))
def test_measures_of_any_texts_lie_within_their_range(texts) -> None:
    assert 0 <= distinct(texts, 1) <= 1
    found, _ = bleu(texts, texts[::-1], range(len(texts)))
    assert 0 <= found.value <= 100 + 1e-9
    assert all(math.isfinite(limit) for limit in (found.stderr, *found.ci95))


def test_short_sentences_and_many_split_ones_are_counted_without_a_warning(caplog):
    texts = ["a cat ."] * 200
    bleu(texts, texts, range(200))
    assert not caplog.records
