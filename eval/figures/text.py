"""Metrics of generated texts (length, variety, ROUGE, BLEU) and of losses, with confidence limits.

metrics.json and results.json of `eval text` contain them. Texts are compared in NFC by words in lower case,
and by characters in scripts without spaces between words: Chinese, Japanese, Thai, Lao, Khmer, Burmese. ROUGE
and BLEU can use the words of jieba instead, as the 0.5B toolkit does.
"""

import functools
import logging
import math
import re
import unicodedata
import warnings
from collections.abc import Callable, Sequence
from importlib import metadata
from types import SimpleNamespace

from tuneyard.core.errors import import_early
from tuneyard.core.language.han import HAN
from tuneyard.eval.figures import metrics
from tuneyard.eval.figures.answers import cut_thought
from tuneyard.eval.statistics.rates import (
    LOSS,
    Groups,
    Mean,
    Rows,
    by_cluster,
    groups_of,
    mean_of,
    rate_of,
    ratio,
    resample,
)

CHARACTERS, JIEBA = "characters", "jieba"
TOKENIZERS = (CHARACTERS, JIEBA)
"""Units of a Chinese text for ROUGE and BLEU."""
ROUGES = ("rouge1", "rouge2", "rougeL")
KANA = "\u3041-\u30ff\uff66-\uff9d"
THAI_LAO = "\u0e01-\u0e30\u0e32\u0e33\u0e40-\u0e46\u0e81-\u0eb0\u0eb2\u0eb3\u0ebd\u0ec0-\u0ec6\u0edc-\u0edf"
KHMER_BURMESE = "\u1780-\u17b3\u1000-\u102a\u103f\u1050-\u1055"
BY_CHARACTER = f"{KANA}{THAI_LAO}{KHMER_BURMESE}"
"""Letters of scripts without spaces between words, which no tokenizer of sacrebleu's core separates."""
UNSPACED = f"{HAN}{BY_CHARACTER}"
JOINERS = "\u200c\u200d"  # inside of words in Persian and in Indic scripts
LAST_MARKS = "\U000e0100-\U000e01ef"  # variation selectors, the only marks after the first two planes
PARTS = 1_000_000


@functools.cache
def _word_pattern() -> re.Pattern[str]:
    """A word with its combining marks, as Unicode's word boundaries keep them together (UAX 29, WB4)."""
    marks = "".join(chr(code) for code in range(0x300, 0x20000) if unicodedata.category(chr(code))[0] == "M")
    extend = f"[{marks}{LAST_MARKS}{JOINERS}]*"
    return re.compile(f"[{UNSPACED}]{extend}|(?:[^\\W_{UNSPACED}]{extend})+")


def words(text: str) -> list[str]:
    """Split a text into words in lower case. Each character is a word in scripts without spaces.

    >>> words("LoRA适配器, rank 8")
    ['lora', '适', '配', '器', 'rank', '8']
    """
    return _word_pattern().findall(_nfc(text.lower()))


def import_overlaps(tokenizer: str) -> None:
    """Import what ROUGE and BLEU need. `RequestError` names a missing package."""
    import_early("rouge_score.rouge_scorer", "sacrebleu.metrics")
    if tokenizer == JIEBA:
        with warnings.catch_warnings():  # jieba imports a deprecated part of setuptools
            warnings.simplefilter("ignore")
            import_early(JIEBA)


def jieba_tokens(text: str) -> list[str]:
    """Split a text by jieba's dictionary. Punctuation stays, white space is dropped."""
    with warnings.catch_warnings():  # jieba imports a deprecated part of setuptools
        warnings.simplefilter("ignore")
        import jieba

    jieba.setLogLevel(logging.WARNING)  # it reports its dictionary on stderr
    return [token for token in jieba.lcut(text) if token.strip()]


def jieba_words(text: str) -> list[str]:
    """Split a text into words in lower case by jieba's dictionary, without punctuation."""
    return [token for token in jieba_tokens(_nfc(text.lower())) if _word_pattern().search(token)]


def tokenizer_name(tokenizer: str) -> str:
    """Name of a tokenizer in results.json, with jieba's version."""
    if tokenizer == JIEBA:
        return f"{JIEBA} {metadata.version(JIEBA)}"
    return tokenizer


def distinct(texts: Sequence[str], n: int) -> float:
    """Share of different n-grams among all n-grams of the texts, distinct-n (Li et al. 2016).

    No n-gram crosses the end of a text. 0 if there are no n-grams.
    """
    grams: list[tuple[str, ...]] = []
    for text in texts:
        grams += ngrams(words(text), n)
    if not grams:
        return 0.0
    return len(set(grams)) / len(grams)


def ngrams(units: Sequence[str], n: int) -> list[tuple[str, ...]]:
    """List the n-grams of a sequence in their order."""
    return list(zip(*(units[i:] for i in range(n)), strict=False))


def rouge(
    references: Sequence[str],
    predictions: Sequence[str],
    tokenizer: str = CHARACTERS,
    names: Sequence[str] = ROUGES,
) -> dict[str, list[float]]:
    """F-measures (0-1) of ROUGE-1, ROUGE-2 and ROUGE-L, row by row (Lin 2004, no stemming)."""
    from rouge_score.rouge_scorer import RougeScorer

    cut = jieba_words if tokenizer == JIEBA else words
    # rouge-score's own tokenizer drops all but a-z and 0-9
    scorer = RougeScorer(list(names), tokenizer=SimpleNamespace(tokenize=cut))
    scores = [scorer.score(*pair) for pair in zip(references, predictions, strict=True)]
    return {name: [score[name].fmeasure for score in scores] for name in scorer.rouge_types}


def bleu(
    references: Sequence[str],
    predictions: Sequence[str],
    groups: Groups = None,
    tokenizer: str = CHARACTERS,
) -> tuple[Mean, str]:
    """Corpus BLEU (0-100) with its bootstrap limits by group, infinite for one, and sacrebleu's signature.

    The tokenizer is `char` if most letters of the references are kana, Thai, Lao, Khmer or Burmese, otherwise
    `zh` if a reference has a Chinese character, otherwise `13a`. With jieba it is `none`, because jieba has
    split the texts.
    """
    import numpy as np
    from sacrebleu.metrics import BLEU

    cut, name = _tokenized(tokenizer, references)
    whole = BLEU(tokenize=name, force=True)  # force: no warning about texts that are already split
    value = whole.corpus_score([*map(cut, predictions)], [[*map(cut, references)]]).score
    cells = by_cluster(np.array(_counts(references, predictions, tokenizer)), groups)
    drawn = [_score(row) for row in resample(cells).tolist()]
    low, high = np.quantile(drawn, (0.025, 0.975)).tolist()
    error = float(np.std(drawn))
    if len(cells) < 2:
        low, high, error = -math.inf, math.inf, math.inf
    return Mean(value, low, high, len(references), error), str(whole.get_signature())


def bleu_signature(references: Sequence[str], tokenizer: str = CHARACTERS) -> str:
    """sacrebleu's signature of BLEU with these references, which other tools compare."""
    from sacrebleu.metrics import BLEU

    _cut, name = _tokenized(tokenizer, references)
    scorer = BLEU(tokenize=name, force=True)
    scorer.corpus_score([""], [[""]])  # the signature has the number of references to an answer
    return str(scorer.get_signature())


def bleu_parts(
    references: Sequence[str], predictions: Sequence[str], tokenizer: str = CHARACTERS
) -> list[float]:
    """Contribution of each row to corpus BLEU (0-100), so that two models can be compared row by row.

    The mean of the contributions is BLEU, their spread gives its standard error. A contribution is BLEU plus
    n times the gain from the row's counts, by BLEU's slope at the whole corpus (the infinitesimal jackknife,
    Efron 1982).
    """
    import numpy as np

    counts = np.array(_counts(references, predictions, tokenizer), dtype=float)
    whole = counts.sum(axis=0)
    value, slopes = _score(whole.tolist()), np.zeros(len(whole))
    for place, total in enumerate(whole):
        step = np.zeros(len(whole))
        step[place] = 1e-4 * total
        if total:
            ends = (_score((whole + sign * step).tolist()) for sign in (1, -1))
            slopes[place] = (next(ends) - next(ends)) / (2 * step[place])
    gains = counts @ slopes
    parts: list[float] = (value + len(counts) * (gains - gains.mean())).tolist()
    return parts


def _tokenized(tokenizer: str, references: Sequence[str]) -> tuple[Callable[[str], str], str]:
    """A function that prepares each text for sacrebleu's tokenizer, and the name of that tokenizer."""
    if tokenizer == JIEBA:
        return lambda text: " ".join(jieba_tokens(_nfc(text))), "none"
    expected = _nfc("".join(references))
    letters = len(re.findall(r"[^\W\d_]", expected))
    if 2 * len(re.findall(f"[{BY_CHARACTER}]", expected)) > letters:
        return _nfc, "char"
    if re.search(f"[{HAN}]", expected):
        return _nfc, "zh"
    return _nfc, "13a"


def _nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _counts(references: Sequence[str], predictions: Sequence[str], tokenizer: str) -> list[list[int]]:
    """Counts that BLEU sums, row by row: matching n-grams, n-grams, prediction and reference length."""
    from sacrebleu.metrics import BLEU

    # effective_order: the same counts, without a warning for each row
    cut, name = _tokenized(tokenizer, references)
    scorer = BLEU(tokenize=name, effective_order=True, force=True)
    scores = [
        scorer.sentence_score(cut(prediction), [cut(reference)])
        for reference, prediction in zip(references, predictions, strict=True)
    ]
    return [[*score.counts, *score.totals, score.sys_len, score.ref_len] for score in scores]


def _score(cells: Sequence[float]) -> float:
    from sacrebleu.metrics import BLEU

    *counts, length, expected = cells
    half = len(counts) // 2
    lengths = (round(PARTS * length), round(PARTS * expected))  # whole ones; only their ratio counts
    corpus_bleu = BLEU.compute_bleu(counts[:half], counts[half:], *lengths, smooth_method="exp")
    return float(corpus_bleu.score)


LARGEST = 700.0  # exp of a larger number overflows
TEXTS = ("prompt", "reference", "prediction", "example")
PERCENTS = (5, 25, 50, 75, 95, 99)
Figures = dict[str, Mean | float | None]
"""Figures by name, a `Mean` if they have limits. None: the rows have nothing to measure."""


def read_figures(rows: Rows) -> Figures:
    """Loss per token over all rows, its perplexity, and the share of rows that were cut.

    `rows` have `loss` (summed), `tokens` and `truncated`.
    """
    loss = metrics()[LOSS].mean(rows)
    low, high = map(_exp, loss.ci95)
    perplexity = Mean(_exp(loss.value), low, high, loss.n, _exp(loss.value) * loss.stderr)
    cut = sum(bool(row["truncated"]) for row in rows) / len(rows)
    return {LOSS: loss, "perplexity": perplexity, "truncation_rate": cut}


def generated_figures(rows: Rows, overlap: bool, tokenizer: str = CHARACTERS) -> tuple[Figures, str | None]:
    """Lengths and variety of predictions, with `overlap` also ROUGE and BLEU; and sacrebleu's signature.

    Rows have `prediction`, `reference`, `prediction_tokens` and `reference_tokens`. The signature is None
    without `overlap`.
    """
    predictions = [row["prediction"] for row in rows]
    references = [row["reference"] for row in rows]
    groups = groups_of(rows)
    lengths = [row["prediction_tokens"] for row in rows]
    reference_lengths = [row["reference_tokens"] for row in rows]
    length_ratio = None
    if any(reference_lengths):
        length_ratio = ratio(lengths, reference_lengths, groups)
    figures: Figures = {
        "empty_rate": rate_of([not text.strip() for text in predictions], groups),
        "avg_pred_len_tokens": mean_of(lengths, groups),
        "avg_ref_len_tokens": mean_of(reference_lengths, groups),
        "len_ratio_pred_over_ref": length_ratio,
        "distinct-1": distinct(predictions, 1),
        "distinct-2": distinct(predictions, 2),
    }
    signature = None
    if overlap:
        for name in (*ROUGES, "bleu"):
            figures[name] = metrics()[name].mean(rows, {"tokenizer": tokenizer})
        signature = bleu_signature(list(map(cut_thought, references)), tokenizer)
    return figures, signature


def lengths_of(rows: Rows) -> dict[str, list[int]]:
    """Numbers of tokens of prompts, references, predictions and whole examples, if rows have them."""
    lengths_by_text = {}
    for name in TEXTS:
        field = f"{name}_tokens"
        lengths = [row[field] for row in rows if field in row]
        if lengths:
            lengths_by_text[name] = lengths
    return lengths_by_text


def percentiles(lengths: Sequence[int]) -> dict[str, float]:
    """Number, mean, smallest and largest of lengths, and percentiles by nearest rank."""
    ordered, n = sorted(lengths), len(lengths)
    ranks = {f"p{p}": ordered[max(0, math.ceil(p * n / 100) - 1)] for p in PERCENTS}
    return {"n": n, "mean": sum(ordered) / n, "min": ordered[0], **ranks, "max": ordered[-1]}


def _exp(value: float) -> float:
    return math.exp(min(value, LARGEST))
