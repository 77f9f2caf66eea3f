"""Uncertainty of a mean over clusters of any size: standard error, degrees of freedom, skew.

Most intervals fail with few clusters of unequal size. The standard error here is CR2 (Bell and McCaffrey
2002): a cluster's residual counts more if the cluster pulls the mean more towards itself. With equal clusters
it is the textbook's. The critical value is Student's with Satterthwaite's degrees of freedom by the clusters'
sizes. A skewed mean is tested on the scale of Hall 1992.
`python -m tools.bench.coverage` prints how often the limits contain the true value.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tuneyard.eval.statistics.rates import Groups, by_cluster

Floats = NDArray[np.float64]
SMALLEST = 1e-12  # least share of the other units; a single unit has none
LEAST_SKEW = 1e-6  # less than this makes no difference, and its inverse would lose all digits


@dataclass(frozen=True, slots=True)
class Spread:
    """The uncertainty of means, each an array [means].

    `influence` [units, means] is the share of each unit (a cluster or a row) in the error of each mean.
    `error` is the standard error, the root of the sum of their squares. `freedom` are the degrees of freedom.
    `skew` is the skewness of the mean's distribution: that of the units over the root of their number.
    """

    value: Floats
    influence: Floats
    error: Floats
    freedom: Floats
    skew: Floats

    def limits(self, place: int, reach: float) -> tuple[float, float]:
        """Limits of one of the means, `reach` standard errors away.

        They are the hull of the limits of the plain statistic and of the statistic corrected for skew.
        """
        up, down = skewed(np.array([reach, -reach]), self.skew[place]).tolist()
        value, error = float(self.value[place]), float(self.error[place])
        return value - max(reach, up) * error, value + max(reach, -down) * error


def spread_of(sums: Floats, sizes: Floats, groups: Groups = None) -> Spread:
    """Uncertainty of Σsums / Σsizes, both [units, means].

    `sums` are sums over the rows of a unit, `sizes` its rows or their weight. With `groups` they are values
    of rows, and a group is a unit. A mean of a single unit has an infinite error.
    """
    sums, sizes = by_cluster(sums, groups), by_cluster(sizes, groups)
    size = sizes.sum(axis=0)
    value = sums.sum(axis=0) / size
    shares = sizes / size
    influence = (sums - value * sizes) / (size * lever(shares))
    squares = (influence**2).sum(axis=0)
    error = np.where(shares.max(axis=0) < 1, np.sqrt(squares), math.inf)
    cubes = (influence**3).sum(axis=0)
    skew = np.divide(cubes, squares**1.5, out=np.zeros_like(cubes), where=squares > 0)
    return Spread(value, influence, error, satterthwaite(shares), skew)


def lever(shares: Floats) -> Floats:
    """Divisors of the residuals of units with these shares of all rows, for an unbiased variance (CR2)."""
    return np.asarray(np.sqrt(np.maximum(1 - shares, SMALLEST)))


def satterthwaite(shares: Floats) -> Floats:
    """Degrees of freedom [means] of a standard error by the units' shares of all rows [units, means].

    G - 1 for G equal units, fewer if some are larger. The rows of a unit count as alike: the variance of its
    sum grows with the square of its size. This assumption gives the fewest degrees.

    The variance is a quadratic form in the units' sums. Its first two moments are matched to a chi square's
    (Satterthwaite 1946, Bell and McCaffrey 2002).
    """
    variances = shares**2
    weights = 1 / lever(shares)
    # The covariance of the influences is diag(diagonal) - a b' - b a' + total a a'.
    # It is too large to be built.
    total = variances.sum(axis=0)
    diagonal = weights**2 * variances
    a = weights * shares
    b = weights * variances
    aa, ab, bb = (a * a).sum(axis=0), (a * b).sum(axis=0), (b * b).sum(axis=0)
    rest = total * a * a - 2 * a * b
    trace = (diagonal + rest).sum(axis=0)
    square = (diagonal**2 + 2 * diagonal * rest).sum(axis=0)
    square = square + 2 * aa * bb + 2 * ab**2 + total**2 * aa**2 - 4 * total * ab * aa
    several = shares.max(axis=0) < 1
    freedom = np.divide(trace**2, square, out=np.ones_like(square), where=several)
    return np.asarray(np.maximum(1.0, freedom))


def normal_deviate(statistic: Floats, freedom: Floats) -> Floats:
    """The standard normal deviate that is as unlikely as a Student's t (Wallace 1959).

    From 3 degrees of freedom on the deviate is within 1.9 % up to 3. Larger ones, and those of fewer degrees,
    are too small: p and intervals err on the safe side.
    """
    scale = (8 * freedom + 1) / (8 * freedom + 3)
    return np.asarray(scale * np.sqrt(freedom * np.log1p(statistic**2 / freedom)))


def student_deviate(deviate: float | Floats, freedom: Floats) -> Floats:
    """The Student's t that is as unlikely as a standard normal deviate: the inverse of `normal_deviate`."""
    scale = (8 * freedom + 1) / (8 * freedom + 3)
    with np.errstate(over="ignore"):
        return np.asarray(np.sqrt(freedom * np.expm1((deviate / scale) ** 2 / freedom)))


def unskewed(statistic: Floats, skew: Floats) -> Floats:
    """t statistics on a scale on which a skewed mean's t is nearly normal.

    Hall 1992, On the removal of skewness by transformation. It rises with t, and without skew it is t.
    """
    flat = np.abs(skew) < LEAST_SKEW
    safe = np.where(flat, 1.0, skew)
    moved = ((1 + safe * statistic / 3) ** 3 - 1) / safe + safe / 6
    return np.asarray(np.where(flat, statistic, moved))


def skewed(deviate: Floats, skew: Floats | np.float64) -> Floats:
    """The t of a deviate on the scale of `unskewed`: its inverse."""
    flat = np.abs(skew) < LEAST_SKEW
    safe = np.where(flat, 1.0, skew)
    moved = 3 / safe * (np.cbrt(1 + safe * (deviate - safe / 6)) - 1)
    return np.asarray(np.where(flat, deviate, moved))
