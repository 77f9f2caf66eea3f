"""What generated texts are like: empty or not, how long, how varied, how near to reference texts.

Texts are compared by words in lower case; Chinese and Japanese, which put no spaces, by characters.
"""

import re
from collections.abc import Hashable, Sequence

import numpy as np

from core.han import HAN
from eval.statistics.rates import Measured
from eval.statistics.shares import by_cluster, resample

UNSPACED = f"{HAN}\u3041-\u30ff"  # and kana
PARTS = 1_000_000
WORD = re.compile(f"[{UNSPACED}]|[^\\W_{UNSPACED}]+")


def words(text: str) -> list[str]:
    """Return the words of a text in lower case, each Chinese or Japanese character as one.

    >>> words("LoRA适配器, rank 8")
    ['lora', '适', '配', '器', 'rank', '8']
    """
    return WORD.findall(text.lower())


def distinct(texts: Sequence[str], n: int) -> float:
    """Return distinct-n (Li et al. 2016): different n-grams of all texts together, none from one text into
    the next, over all n-grams; 0 where there is none."""
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
    references: Sequence[str], predictions: Sequence[str], groups: Sequence[Hashable] | None = None
) -> tuple[Measured, str]:
    """Return corpus BLEU (0-100) with its bootstrap limits by group, and sacrebleu's signature; its tokenizer
    is `zh` where a Chinese character stands in a reference, else `13a`."""
    from sacrebleu.metrics import BLEU

    whole = BLEU(tokenize=_tokenizer(references))
    value = whole.corpus_score(list(predictions), [list(references)]).score
    cells = by_cluster(np.array(_counts(references, predictions)), groups)
    drawn = [_score(row) for row in resample(cells).tolist()]
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Measured(value, float(np.std(drawn)), (float(low), float(high))), str(whole.get_signature())


def bleu_parts(references: Sequence[str], predictions: Sequence[str]) -> list[float]:
    """Return each row's part in corpus BLEU (0-100): their mean is BLEU, their spread its standard error.

    A row's part is BLEU and n times what BLEU gains from its counts, by BLEU's slope at the whole corpus
    (the infinitesimal jackknife, Efron 1982): two models' parts differ row by row as their BLEU does.
    """
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
