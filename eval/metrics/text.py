"""What generated texts are like: empty or not, how long, how varied, how near to reference texts.

Texts are compared by words in lower case; Chinese and Japanese, which put no spaces, by characters.
"""

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from core.han import HAN
from eval.statistics.shares import clustered_stderr, critical, resample

UNSPACED = f"{HAN}\u3041-\u30ff"  # and kana
PARTS = 1_000_000
WORD = re.compile(f"[{UNSPACED}]|[^\\W_{UNSPACED}]+")


@dataclass(frozen=True, slots=True)
class Measured:
    """A figure with its standard error and 95 % limits."""

    value: float
    stderr: float
    ci95: tuple[float, float]


def words(text: str) -> list[str]:
    """Return the words of a text in lower case, each Chinese or Japanese character as one.

    >>> words("LoRA适配器, rank 8")
    ['lora', '适', '配', '器', 'rank', '8']
    """
    return WORD.findall(text.lower())


def ratio(tops: Sequence[float], bottoms: Sequence[float], groups: Sequence[Hashable]) -> Measured:
    """Return Σtops / Σbottoms over rows that come in groups; with bottoms of 1 it is the mean.

    The error is that of a ratio estimator (Cochran 1977, §6.3), linearised and by group.
    `ValueError` where the bottoms sum to nothing.
    """
    total = sum(bottoms)
    if total <= 0:
        raise ValueError(f"found a sum of {total}, expected more than 0")
    value = sum(tops) / total
    residuals = [top - value * bottom for top, bottom in zip(tops, bottoms, strict=True)]
    error = clustered_stderr(residuals, groups) * len(tops) / total
    reach = critical(len(tops), groups) * error
    return Measured(value, error, (value - reach, value + reach))


def distinct(texts: Sequence[str], n: int) -> float:
    """Return distinct-n (Li et al. 2016): different n-grams of all texts together over all n-grams.

    No n-gram reaches from one text into the next; 0 where there is none.
    """
    grams = [gram for text in texts for gram in ngrams(words(text), n)]
    return len(set(grams)) / len(grams) if grams else 0.0


def ngrams(units: Sequence[str], n: int) -> list[tuple[str, ...]]:
    """Return the n-grams of a sequence in their order."""
    return list(zip(*(units[i:] for i in range(n)), strict=False))


def rouge(references: Sequence[str], predictions: Sequence[str]) -> dict[str, list[float]]:
    """Return the F-measures (0-1) of ROUGE-1, ROUGE-2 and ROUGE-L, row by row (Lin 2004, no stemming)."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], tokenizer=_Words())
    scores = [scorer.score(*pair) for pair in zip(references, predictions, strict=True)]
    return {name: [score[name].fmeasure for score in scores] for name in scorer.rouge_types}


class _Words:
    """The tokenizer that rouge-score is given: its own drops all but a-z and 0-9."""

    def tokenize(self, text: str) -> list[str]:
        return words(text)


def bleu(
    references: Sequence[str], predictions: Sequence[str], groups: Sequence[Hashable]
) -> tuple[Measured, str]:
    """Return corpus BLEU (0-100) with its bootstrap limits by group, and sacrebleu's signature.

    The tokenizer is sacrebleu's `zh` where a Chinese character stands in a reference, else `13a`.
    """
    import numpy as np
    from sacrebleu.metrics import BLEU

    whole = BLEU(tokenize=_tokenizer(references))
    value = whole.corpus_score(list(predictions), [list(references)]).score
    cells: dict[Hashable, list[int]] = {}
    for group, counts in zip(groups, _counts(references, predictions), strict=True):
        before = cells.get(group, [0] * len(counts))
        cells[group] = [a + b for a, b in zip(before, counts, strict=True)]
    drawn = [_score(row) for row in resample(list(cells.values())).tolist()]
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Measured(value, float(np.std(drawn)), (float(low), float(high))), str(whole.get_signature())


def bleu_parts(references: Sequence[str], predictions: Sequence[str]) -> list[float]:
    """Return each row's part in corpus BLEU (0-100): their mean is BLEU, their spread its standard error.

    A row's part is BLEU and n times what BLEU gains from its counts, by BLEU's slope at the whole corpus
    (the infinitesimal jackknife, Efron 1982): two models' parts differ row by row as their BLEU does.
    """
    import numpy as np

    counts = np.array(_counts(references, predictions), dtype=float)
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


def _tokenizer(references: Sequence[str]) -> str:
    return "zh" if re.search(f"[{HAN}]", "".join(references)) else "13a"


def _counts(references: Sequence[str], predictions: Sequence[str]) -> list[list[int]]:
    """Return for each row the counts that BLEU adds up: n-grams that match, n-grams, both lengths."""
    from sacrebleu.metrics import BLEU

    # effective_order: the same counts, without a warning for each row
    scorer = BLEU(tokenize=_tokenizer(references), effective_order=True)
    scores = [
        scorer.sentence_score(*pair) for pair in zip(predictions, [[r] for r in references], strict=True)
    ]
    return [[*score.counts, *score.totals, score.sys_len, score.ref_len] for score in scores]


def _score(cells: Sequence[float]) -> float:
    from sacrebleu.metrics import BLEU

    *counts, length, expected = cells
    half = len(counts) // 2
    lengths = (round(PARTS * length), round(PARTS * expected))  # whole ones; only their ratio counts
    found = BLEU.compute_bleu(counts[:half], counts[half:], *lengths, smooth_method="exp")
    return float(found.score)
