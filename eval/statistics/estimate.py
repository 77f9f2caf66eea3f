"""The record of every value that has an interval: accuracies, metrics, differences, recipes."""

from dataclasses import dataclass, replace
from typing import Self


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its 95 % limits, in any unit. Shares are 0 to 1, differences of shares -1 to 1."""

    value: float
    low: float
    high: float

    @property
    def ci95(self) -> tuple[float, float]:
        """Lower and upper limit."""
        return self.low, self.high

    @property
    def with_limits(self) -> tuple[float, float, float]:
        """The value, its lower and its upper limit."""
        return self.value, self.low, self.high


@dataclass(frozen=True, slots=True)
class Mean(Estimate):
    """A mean, a share or a ratio over `n` rows, with its standard error."""

    n: int
    stderr: float

    def as_json(self) -> dict[str, object]:
        """Plain JSON values, as results.json has them."""
        return {"value": self.value, "n": self.n, "stderr": self.stderr, "ci95": list(self.ci95)}


@dataclass(frozen=True, slots=True)
class DifferenceTest(Estimate):
    """A mean difference with its two-sided p. Limits and p hold for all comparisons of one family together.

    `smallest` is the minimum detectable effect (80 % power).
    """

    p: float
    smallest: float

    def turned(self) -> Self:
        """The same test of the opposite difference."""
        return replace(self, value=-self.value, low=-self.high, high=-self.low)
