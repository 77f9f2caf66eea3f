"""Words of many scripts: ROUGE against rouge-score's count of words by spaces, BLEU against sacrebleu."""

import unicodedata
from types import SimpleNamespace

import pytest
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu import corpus_bleu

from tuneyard.eval.figures.text import bleu, distinct, rouge, words

SPACED = {
    "Tamil": ("நான் இன்று காலை பள்ளிக்குச் சென்றேன்", "நான் நேற்று காலை பள்ளிக்குச் சென்றேன்"),
    "Bengali": ("আমি আজ সকালে স্কুলে গিয়েছিলাম", "আমি কাল সকালে স্কুলে গিয়েছিলাম"),
    "Arabic": ("كَتَبَ الطَّالِبُ الدَّرْسَ فِي الْبَيْتِ", "قَرَأَ الطَّالِبُ الدَّرْسَ فِي الْبَيْتِ"),
    "Hebrew": ("בְּרֵאשִׁית בָּרָא אֱלֹהִים אֵת הַשָּׁמַיִם", "בְּרֵאשִׁית בָּרָא הַמֶּלֶךְ אֵת הַשָּׁמַיִם"),
    "Korean": ("나는 오늘 아침 학교에 갔다", "나는 어제 아침 학교에 갔다"),
    "Telugu": ("నేను ఈరోజు ఉదయం పాఠశాలకు వెళ్ళాను", "నేను నిన్న ఉదయం పాఠశాలకు వెళ్ళాను"),
    "Vietnamese": ("Hôm nay tôi đã đến trường học", "Hôm qua tôi đã đến trường học"),
    "Persian": ("من امروز به مدرسه می‌روم", "من دیروز به مدرسه می‌روم"),
}
UNSPACED = {
    "Lao": ("ຂ້ອຍຮັກປະເທດລາວ", "ຂ້ອຍຮັກປະເທດໄທ"),
    "Khmer": ("ខ្ញុំស្រឡាញ់ប្រទេសកម្ពុជា", "ខ្ញុំស្រឡាញ់ប្រទេសថៃ"),
    "Burmese": ("ကျွန်တော်မြန်မာနိုင်ငံကိုချစ်တယ်", "ကျွန်တော်ထိုင်းနိုင်ငံကိုချစ်တယ်"),
}
NEARLY = [
    ("கல்", "கால்"), ("কল", "কাল"), ("كَتَبَ", "كُتِبَ"), ("כַּלָּה", "כָּלָה"), ("각", "간"), ("కల", "కాల"), ("ma", "má"),
    ("ກາ", "ກີ"), ("កា", "កី"), ("ကာ", "ကီ"),
]  # fmt: skip
"""Two words of a script that differ by a mark or a letter within a syllable."""


def nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def nfd(text: str) -> str:
    return unicodedata.normalize("NFD", text)


@pytest.mark.parametrize("form", [nfc, nfd], ids=["NFC", "NFD"])
@pytest.mark.parametrize("language", SPACED)
def test_words_between_spaces_are_words(language, form) -> None:
    expected, predicted = SPACED[language]
    between_spaces = SimpleNamespace(tokenize=lambda text: nfc(text).lower().split())
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], tokenizer=between_spaces)
    scores = scorer.score(expected, predicted)
    assert 0 < scores["rouge2"].fmeasure < scores["rouge1"].fmeasure < 1
    figures = rouge([expected], [form(predicted)])
    assert figures == {name: [score.fmeasure] for name, score in scores.items()}
    value, _ = bleu([expected] * 2, [form(predicted)] * 2)
    assert value.value == pytest.approx(
        corpus_bleu([nfc(predicted)] * 2, [[nfc(expected)] * 2], tokenize="13a").score
    )


@pytest.mark.parametrize("form", [nfc, nfd], ids=["NFC", "NFD"])
@pytest.mark.parametrize("language", UNSPACED)
def test_scripts_without_spaces_are_compared_by_characters_with_their_marks(language, form) -> None:
    expected, predicted = UNSPACED[language]
    value, signature = bleu([expected] * 2, [form(predicted)] * 2)
    oracle = corpus_bleu([nfc(predicted)] * 2, [[nfc(expected)] * 2], tokenize="char").score
    assert value.value == pytest.approx(oracle) and 0 < oracle < 100
    assert "tok:char" in signature
    assert "".join(words(expected)) == nfc(expected) and len(words(expected)) > 5
    assert 0 < rouge([expected], [form(predicted)])["rougeL"][0] < 1


@pytest.mark.parametrize(("one", "other"), NEARLY)
def test_words_that_differ_by_a_mark_are_two(one, other) -> None:
    if len(words(one)) == 1:
        assert rouge([one], [other])["rouge1"] == [0.0]
        assert distinct([one, other], 1) == 1.0
    assert rouge([one], [other])["rougeL"][0] < 1
    assert rouge([one], [nfd(one)])["rouge1"] == [1.0]
    assert distinct([one, nfd(one)], 1) == 1 / 2


def test_marks_in_another_order_are_the_same_word() -> None:
    shadda_first, fatha_first = "مُحَم\u0651\u064eد", "مُحَم\u064e\u0651د"
    assert words(shadda_first) == words(fatha_first)
    assert rouge([shadda_first], [fatha_first])["rougeL"] == [1.0]
