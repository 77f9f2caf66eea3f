"""What generated texts are like: empty or not, how long, how varied, how near to reference texts;
and the figures of a set whose answers were read and generated: those of metrics.json, and their limits.

Texts are compared by words in lower case; Chinese and Japanese, which put no spaces, by characters. ROUGE
and BLEU can take the words of jieba instead, as the 0.5B toolkit does.
"""

import logging
import math
import re
import warnings
from collections.abc import Callable, Hashable, Sequence
from importlib import metadata
from types import SimpleNamespace

import numpy as np

from tuneyard.core.han import HAN
from tuneyard.eval.statistics.estimate import Mean
from tuneyard.eval.statistics.rates import (
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
"""What a Chinese text is cut into for ROUGE and BLEU."""
UNSPACED = f"{HAN}\u3041-\u30ff"  # and kana
PARTS = 1_000_000
WORD = re.compile(f"[{UNSPACED}]|[^\\W_{UNSPACED}]+")


def words(text: str) -> list[str]:
    """Return the words of a text in lower case, each Chinese or Japanese character as one.

    >>> words("LoRA适配器, rank 8")
    ['lora', '适', '配', '器', 'rank', '8']
    """
    return WORD.findall(text.lower())


def jieba_tokens(text: str) -> list[str]:
    """Return the tokens of a text by jieba's dictionary, punctuation among them, white space left out."""
    with warnings.catch_warnings():  # it asks for a part of setuptools, which deprecates it
        warnings.simplefilter("ignore")
        import jieba

    jieba.setLogLevel(logging.WARNING)  # it reports its dictionary on stderr
    return [token for token in jieba.lcut(text) if token.strip()]


def jieba_words(text: str) -> list[str]:
    """Return the words of a text in lower case by jieba's dictionary, without punctuation."""
    return [token for token in jieba_tokens(text.lower()) if WORD.search(token)]


def tokenizer_name(tokenizer: str) -> str:
    """Return a tokenizer as results.json names it, with the version of what has one."""
    return f"{JIEBA} {metadata.version(JIEBA)}" if tokenizer == JIEBA else tokenizer


def distinct(texts: Sequence[str], n: int) -> float:
    """Return distinct-n (Li et al. 2016): different n-grams of all texts together, none from one text into
    the next, over all n-grams; 0 where there is none."""
    grams = [gram for text in texts for gram in ngrams(words(text), n)]
    return len(set(grams)) / len(grams) if grams else 0.0


def ngrams(units: Sequence[str], n: int) -> list[tuple[str, ...]]:
    """Return the n-grams of a sequence in their order."""
    return list(zip(*(units[i:] for i in range(n)), strict=False))


def rouge(
    references: Sequence[str], predictions: Sequence[str], tokenizer: str = CHARACTERS
) -> dict[str, list[float]]:
    """Return the F-measures (0-1) of ROUGE-1, ROUGE-2 and ROUGE-L, row by row (Lin 2004, no stemming)."""
    from rouge_score.rouge_scorer import RougeScorer

    cut = jieba_words if tokenizer == JIEBA else words
    # rouge-score's own tokenizer drops all but a-z and 0-9
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], tokenizer=SimpleNamespace(tokenize=cut))
    scores = [scorer.score(*pair) for pair in zip(references, predictions, strict=True)]
    return {name: [score[name].fmeasure for score in scores] for name in scorer.rouge_types}


def bleu(
    references: Sequence[str],
    predictions: Sequence[str],
    groups: Sequence[Hashable] | None = None,
    tokenizer: str = CHARACTERS,
) -> tuple[Mean, str]:
    """Return corpus BLEU (0-100) with its bootstrap limits by group, and sacrebleu's signature.

    Its tokenizer is `zh` if a Chinese character is in a reference, otherwise `13a`; with jieba `none`, of
    texts that jieba has cut.
    """
    from sacrebleu.metrics import BLEU

    cut, name = _tokenized(tokenizer, references)
    whole = BLEU(tokenize=name, force=True)  # no warning of texts that are cut already
    value = whole.corpus_score([*map(cut, predictions)], [[*map(cut, references)]]).score
    cells = by_cluster(np.array(_counts(references, predictions, tokenizer)), groups)
    drawn = [_score(row) for row in resample(cells).tolist()]
    low, high = np.quantile(drawn, (0.025, 0.975))
    limits = (float(low), float(high))
    return Mean(value, *limits, len(references), float(np.std(drawn))), str(whole.get_signature())


def bleu_parts(
    references: Sequence[str], predictions: Sequence[str], tokenizer: str = CHARACTERS
) -> list[float]:
    """Return each row's part in corpus BLEU (0-100): their mean is BLEU, their spread its standard error. A
    row's part is BLEU and n times what BLEU gains from its counts, by BLEU's slope at the whole corpus (the
    infinitesimal jackknife, Efron 1982): two models' parts differ row by row as their BLEU does."""
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
    found: list[float] = (value + len(counts) * (gains - gains.mean())).tolist()
    return found


def _tokenized(tokenizer: str, references: Sequence[str]) -> tuple[Callable[[str], str], str]:
    """Return what is done to each text before sacrebleu's tokenizer, and the name of that tokenizer."""
    if tokenizer == JIEBA:
        return lambda text: " ".join(jieba_tokens(text)), "none"
    return str, "zh" if re.search(f"[{HAN}]", "".join(references)) else "13a"


def _counts(references: Sequence[str], predictions: Sequence[str], tokenizer: str) -> list[list[int]]:
    """Return for each row the counts that BLEU adds up: n-grams that match, n-grams, both lengths."""
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
    found = BLEU.compute_bleu(counts[:half], counts[half:], *lengths, smooth_method="exp")
    return float(found.score)


LARGEST = 700.0  # exp of more is no number that JSON holds
TEXTS = ("prompt", "reference", "prediction", "example")
PERCENTS = (5, 25, 50, 75, 95, 99)
Figures = dict[str, Mean | float | None]
"""Figures by name: those that have limits with them, None where there is nothing to measure."""


def read_figures(rows: Rows) -> Figures:
    """Return the loss per token over all rows together, exp of it, and the share of rows that were cut.
    `rows` have `loss` (summed), `tokens`, `truncated`; `ValueError` without a token."""
    loss = ratio(_numbers(rows, "loss"), _numbers(rows, "tokens"), groups_of(rows))
    low, high = map(_exp, loss.ci95)
    perplexity = Mean(_exp(loss.value), low, high, loss.n, _exp(loss.value) * loss.stderr)
    cut = sum(bool(row["truncated"]) for row in rows) / len(rows)
    return {"eval_loss": loss, "perplexity": perplexity, "truncation_rate": cut}


def generated_figures(rows: Rows, overlap: bool, tokenizer: str = CHARACTERS) -> tuple[Figures, str | None]:
    """Return lengths, variety and (`overlap`) ROUGE and BLEU of rows with `prediction`, `reference`,
    `prediction_tokens` and `reference_tokens`; and sacrebleu's signature."""
    said, expected = ([str(row[name]) for row in rows] for name in ("prediction", "reference"))
    groups = groups_of(rows)
    lengths, expected_lengths = (_numbers(rows, f"{name}_tokens") for name in ("prediction", "reference"))
    found: Figures = {
        "empty_rate": rate_of([not text.strip() for text in said], groups),
        "avg_pred_len_tokens": mean_of(lengths, groups),
        "avg_ref_len_tokens": mean_of(expected_lengths, groups),
        "len_ratio_pred_over_ref": ratio(lengths, expected_lengths, groups)
        if any(expected_lengths)
        else None,
        **{f"distinct-{n}": distinct(said, n) for n in (1, 2)},
    }
    signature = None
    if overlap:
        found |= {name: mean_of(each, groups) for name, each in rouge(expected, said, tokenizer).items()}
        found["bleu"], signature = bleu(expected, said, groups, tokenizer)
    return found, signature


def lengths_of(rows: Rows) -> dict[str, list[int]]:
    """Return how many tokens prompts, references, predictions and whole examples have, those there are."""
    found = {
        name: [int(str(row[f"{name}_tokens"])) for row in rows if f"{name}_tokens" in row] for name in TEXTS
    }
    return {name: lengths for name, lengths in found.items() if lengths}


def percentiles(lengths: Sequence[int]) -> dict[str, float]:
    """Return n, mean, smallest, largest and percentiles (of p %, the least that p % do not exceed)."""
    ordered, n = sorted(lengths), len(lengths)
    ranks = {f"p{p}": ordered[max(0, math.ceil(p * n / 100) - 1)] for p in PERCENTS}
    return {"n": n, "mean": sum(ordered) / n, "min": ordered[0], **ranks, "max": ordered[-1]}


def _exp(value: float) -> float:
    return math.exp(min(value, LARGEST))


def _numbers(rows: Rows, name: str) -> list[float]:
    return [float(str(row[name])) for row in rows]
