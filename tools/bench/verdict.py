"""python -m tools.bench.verdict [PAGES]   what a page of compare promises, simulated with known truth.

Each line is PAGES pages (400 unless given; of one candidate ten times as many) of k candidates and n
examples. `before` is Holm over exact McNemar beside Bonett and Price's intervals, which compare had; `now` is
`estimates`.
Contradictions: pages on which a p under 5 % stands beside an interval that holds 0, or the reverse. Coverage:
of the candidate with the highest figure, shipped or not. Bias: of its figure, in points; `ship` given "Ship".
The last lines are settings of equal truth, each trained with several seeds: how often a setting is shown to
be better than another, and how often the best single training is, if every training is a candidate.
The lines before these are `now` alone, on examples in 3 to 20 clusters of 1 to 60 examples each, of which
half are fixed or regressed with their whole cluster.

Run it after a change of what decides a verdict.
"""

import sys

import numpy as np
from scipy.stats import binom

from testing.interval_designs import clusters_of, luckiest
from tuneyard.eval.statistics import family

DISCORDANCE = 0.25
CLUSTERS = (3, 5, 8, 12, 15, 20)
SHARED = 0.5  # of the examples, on which all candidates are fixed or regressed together
TRUTHS = {"all at 0": (0.0, 0.0), "all at +3": (0.03, 0.03), "one at +6": (0.06, 0.0)}
CLUSTERED = "truth, k, clusters: contradictions, coverage, ship, no bounds"
SEEDED = "equal settings, seeds, deviation between seeds: false winners, best against worst single training"
HEADER = "truth, k, n: contradictions, coverage, ship before → now; bias raw (ship) → shrunk (ship), points"


def steps(generator: np.random.Generator, gains: np.ndarray, n: int) -> np.ndarray:
    """Return differences -1, 0 or 1 [n, candidates] with these expected values."""
    shared = generator.random((n, 1)) < SHARED
    drawn = np.where(shared, generator.random((n, 1)), generator.random((n, len(gains))))
    better, worse = (DISCORDANCE + gains) / 2, (DISCORDANCE - gains) / 2
    return (drawn < better).astype(float) - (drawn > 1 - worse)


def clustered(generator: np.random.Generator, gains: np.ndarray, count: int) -> tuple[np.ndarray, list[int]]:
    """Return differences [rows, candidates] with these expected values, and the cluster of each row: of half
    of the rows in each cluster the difference is the cluster's."""
    keys = clusters_of(generator, count)
    whole = steps(generator, gains, count)[keys]
    own = steps(generator, gains, len(keys))
    return np.where(generator.random((len(keys), 1)) < SHARED, whole, own), keys.tolist()


def clustered_page(generator: np.random.Generator, gains: np.ndarray, count: int) -> list[float]:
    """Return of one page in clusters whether it contradicts itself, covers, ships, and has no bounds."""
    drawn, keys = clustered(generator, gains, count)
    units = family.units_of([drawn], [keys])
    found = family.estimates(units)
    best = int(units.values.argmax())
    one = found[best]
    against = any(bool(each.p < 0.05) != (each.low > 0 or each.high < 0) for each in found)
    covered = bool(one.low <= gains[best] <= one.high)
    shipped = bool(one.p < 0.05 and one.value > 0)
    return [float(each) for each in (against, covered, shipped, one.low == -1 and one.high == 1)]


def before(drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return p (Holm over exact McNemar) and Bonett and Price's limits of each candidate."""
    n, better, worse = len(drawn), (drawn > 0).sum(0), (drawn < 0).sum(0)
    alone = np.minimum(1, 2 * binom.cdf(np.minimum(better, worse), better + worse, 0.5))
    gain, loss = (better + 1) / (n + 2), (worse + 1) / (n + 2)
    half = 1.959964 * np.sqrt((gain + loss - (gain - loss) ** 2) / (n + 2))
    ranked = np.argsort(alone)
    adjusted = np.minimum(1, np.maximum.accumulate(alone[ranked] * np.arange(len(alone), 0, -1)))
    holm = np.empty_like(alone)
    holm[ranked] = adjusted
    return holm, gain - loss - half, gain - loss + half


def page(drawn: np.ndarray, gains: np.ndarray) -> list[float]:
    """Return of one page what `HEADER` names, before and now; nan where it does not apply."""
    units = family.units_of([drawn], [None])
    found = family.estimates(units)
    best = int(units.values.argmax())
    shrunk = family.shrunk(units)[best] if len(found) > 2 else np.nan
    told: list[float] = []
    now = tuple(np.array([getattr(one, name) for one in found]) for name in ("p", "low", "high"))
    for p, low, high in (before(drawn), now):
        against = np.any((p < 0.05) != ((low > 0) | (high < 0)))
        covered = low[best] <= gains[best] <= high[best]
        shipped = p[best] < 0.05 and units.values[best] > 0
        told += [float(against), float(covered), float(shipped)]
    raw, corrected = 100 * (units.values[best] - gains[best]), 100 * (shrunk - gains[best])
    return [*told, raw, raw if told[5] else np.nan, corrected, corrected if told[5] else np.nan]


def mean(column: np.ndarray) -> float:
    """Return the mean of the pages to which a figure applies, nan without any."""
    kept = column[~np.isnan(column)]
    return float(kept.mean()) if len(kept) else float("nan")


def cell(gains: np.ndarray, n: int, pages: int) -> list[float]:
    """Return the means of `pages` simulated pages."""
    generator = np.random.default_rng([n, len(gains), round(1000 * gains.sum())])
    return [
        mean(column)
        for column in np.array([page(steps(generator, gains, n), gains) for _unused in range(pages)]).T
    ]


def main() -> None:
    """Print a line for each truth, number of candidates and n."""
    pages = int(sys.argv[1]) if sys.argv[1:] else 400
    print(HEADER)
    for name, (first, others) in TRUTHS.items():
        for k in (1, 3, 8):
            for n in (100, 300, 1000):
                f = cell(np.array([first] + [others] * (k - 1)), n, pages * (10 if k == 1 else 1))
                print(
                    f"{name}, {k}, {n:>4}: {f[0]:5.1%} → {f[3]:4.1%}, {f[1]:.1%} → {f[4]:.1%}, "
                    f"{f[2]:5.1%} → {f[5]:5.1%}; {f[6]:+.1f} ({f[7]:+.1f}) → {f[8]:+.1f} ({f[9]:+.1f})",
                    flush=True,
                )
    print(CLUSTERED)
    for name, (first, others) in TRUTHS.items():
        for k in (1, 3):
            gains = np.array([first] + [others] * (k - 1))
            for count in CLUSTERS:
                generator = np.random.default_rng([count, k, round(1000 * gains.sum())])
                f = np.mean([clustered_page(generator, gains, count) for _unused in range(5 * pages)], axis=0)
                print(f"{name}, {k}, {count:>2}: {f[0]:.1%}, {f[1]:.1%}, {f[2]:.1%}, {f[3]:.1%}", flush=True)
    print(SEEDED)
    for settings in (2, 4, 8):
        for spread in (0.0, 0.03):
            generator = np.random.default_rng([settings, round(100 * spread)])
            won = np.mean([luckiest(generator, settings, 5, 300, spread) for _unused in range(pages)], axis=0)
            print(f"{settings}, 5, {100 * spread:g} points: {won[0]:.1%}, {won[1]:.1%}", flush=True)


if __name__ == "__main__":
    main()
