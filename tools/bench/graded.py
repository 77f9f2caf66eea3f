"""python -m tools.bench.graded [PAGES]   what compare promises of other metrics than accuracy.

Simulated with known truth: each line is PAGES pages (400 unless given) of a base and k candidates on n
examples, in clusters of four where it says so. Coverage: of the candidate with the highest figure. Ship: a
difference in its favour with p under 5 %. Loss is per token, examples weigh as many tokens as they have; F1
is the mean of values from 0 to 1; AUC and corpus BLEU are means of the parts that each example has in them.

Run it after a change of how metrics other than accuracy are compared.
"""

import random
import sys
from collections.abc import Callable

import numpy as np
from scipy.stats import norm

from tuneyard.eval.figures.preference import auc_parts
from tuneyard.eval.figures.text import bleu_parts
from tuneyard.eval.statistics import family

Drawn = tuple[np.ndarray, np.ndarray | None]  # values [n, base and candidates], what each example weighs
WORDS = [
    "a",
    "man",
    "walks",
    "the",
    "dog",
    "near",
    "our",
    "house",
    "while",
    "two",
    "children",
    "play",
    "there",
]


def noise(generator: np.random.Generator, n: int, columns: int, clusters: np.ndarray) -> np.ndarray:
    """Return noise [n, columns], half of it shared by a cluster, half of that by the models."""
    shared = generator.normal(size=(clusters.max() + 1, columns))[clusters]
    total: np.ndarray = shared + generator.normal(size=(n, columns)) + generator.normal(size=(n, 1))
    scaled: np.ndarray = total / np.sqrt(3)
    return scaled


def loss(generator: np.random.Generator, drawn: np.ndarray, gain: float) -> Drawn:
    """Return losses with a long tail, higher for longer examples, of which candidates have `gain` less."""
    tokens = np.ceil(np.exp(generator.normal(3, 1, len(drawn))))
    values = np.exp(0.5 * drawn) + 0.1 * np.log(tokens)[:, None]
    values[:, 1:] -= gain
    return -values, tokens


def f1(generator: np.random.Generator, drawn: np.ndarray, gain: float) -> Drawn:
    """Return values with a mass at 0 and at 1; a candidate that is better has its 0 made 1."""
    values = np.clip(0.5 + drawn, 0, 1)
    better = (
        generator.random((len(drawn), 1)) < gain / 0.3085
    )  # of those that are 0, so that the mean gains `gain`
    values[:, 1:] = np.where((values[:, 1:] == 0) & better, 1.0, values[:, 1:])
    return values, None


def auc(generator: np.random.Generator, drawn: np.ndarray, gain: float) -> Drawn:
    """Return parts of AUCs of 0.76 (the base) and `gain` more, a third of the examples positive."""
    marks = [bool(mark) for mark in generator.random(len(drawn)) < 1 / 3]
    marks[:2] = True, False
    apart = np.array([norm.ppf(0.76)] + [norm.ppf(0.76 + gain)] * (drawn.shape[1] - 1)) * np.sqrt(2)
    scores = drawn + np.array(marks)[:, None] * apart
    return np.array([auc_parts(own.tolist(), marks) for own in scores.T]).T, None


def bleu(generator: np.random.Generator, drawn: np.ndarray, _unused: float) -> Drawn:
    """Return parts of corpus BLEUs of texts with as many errors, whoever wrote them: no gain."""
    draw = random.Random(int(generator.integers(1 << 31)))
    texts = [[draw.choice(WORDS) for _unused in range(draw.randint(6, 20))] for _unused in drawn]

    def written(row: int, column: int) -> str:
        spoilt = norm.cdf(drawn[row, column]) * 0.6
        return " ".join("wrong" if draw.random() < spoilt else word for word in texts[row])

    columns = range(drawn.shape[1])
    said = [[written(row, column) for row in range(len(texts))] for column in columns]
    return np.array([bleu_parts([" ".join(text) for text in texts], own) for own in said]).T, None


METRICS: dict[str, tuple[Callable[[np.random.Generator, np.ndarray, float], Drawn], float, float]] = {
    "loss": (loss, 0.1, float("inf")),
    "F1": (f1, 0.05, 1.0),
    "AUC": (auc, 0.05, 1.0),
    "BLEU": (bleu, 0.0, float("inf")),
}


def page(metric: str, gain: float, k: int, clusters: np.ndarray, seed: int) -> tuple[bool, bool]:
    """Return of one page whether the best candidate's limits hold the truth, and whether it is shipped."""
    make, _unused, bound = METRICS[metric]
    generator = np.random.default_rng([seed, len(clusters), k])
    values, weights = make(generator, noise(generator, len(clusters), k + 1, clusters), gain)
    steps = values[:, 1:] - values[:, :1]
    keys = None if clusters.max() + 1 == len(clusters) else clusters.tolist()
    units = family.units_of([steps], [keys], None if weights is None else [weights], bound)
    best = int(units.values.argmax())
    found = family.estimates(units)[best]
    return found.low <= gain <= found.high, found.p < 0.05 and found.value > 0


def main() -> None:
    """Print a line for each metric, truth, number of candidates and n."""
    pages = int(sys.argv[1]) if sys.argv[1:] else 400
    print("metric, gain, k, n: coverage, ship")
    for metric, (_draw, gain, _unit) in METRICS.items():
        for truth in dict.fromkeys((0.0, gain)):
            for k, n, size in ((1, 100, 1), (3, 100, 1), (3, 300, 1), (3, 300, 4)):
                clusters = np.arange(n) // size
                found = np.array([page(metric, truth, k, clusters, seed) for seed in range(pages)]).mean(0)
                beside = f" in clusters of {size}" if size > 1 else ""
                print(f"{metric}, {truth:+}, {k}, {n}{beside}: {found[0]:.1%}, {found[1]:.1%}", flush=True)


if __name__ == "__main__":
    main()
