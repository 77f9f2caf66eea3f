"""python -m tools.bench.plan_time   fit the constants of `recipes.costs.duration` to published times.

Prints the constants of all sizes, then judges each model size by constants that were fitted without it: how
many of its published times lie in the range, and how wide the range is.

Run it when a published time is added to or taken from the golden ones.
"""

from collections.abc import Sequence
from statistics import median

import numpy as np
from scipy.optimize import least_squares

from tests.unit.recipes.test_costs import CASES, GATHERED, Case
from tuneyard.recipes.costs import PACE, Pace, duration, flops
from tuneyard.recipes.machine.hardware import GPUS

ROBUST = 0.2  # log ratio beyond which a published time pulls less
PRIOR = 0.05  # keeps a constant where it is when no case of a fit depends on it


def planned(case: Case, pace: Pace) -> tuple[float, float, float]:
    """The range and middle that `recipe plan` would print for a published training."""
    tokens = GATHERED * case.setup.tokens
    work = flops(case.shapes, case.setup, tokens, case.setup.tokens)
    return duration(case.shapes, case.setup, work, tokens, GATHERED, GPUS["A100-80"], pace)


def fit(cases: Sequence[Case]) -> Pace:
    """Least squares of the log ratios, with a loss that outliers pull less."""
    start = np.log(PACE)

    def residuals(logarithms: np.ndarray) -> list[float]:
        pace = Pace(*np.exp(logarithms))
        errors = [float(np.log(planned(case, pace)[1] / case.step)) for case in cases]
        return errors + list(PRIOR * (logarithms - start))

    return Pace(*np.exp(least_squares(residuals, start, loss="soft_l1", f_scale=ROBUST).x))


def size_of(case: Case) -> str:
    """The model of a case, e.g. `7B`."""
    return case.name.split(",")[0].removeprefix("model ")


def judged() -> dict[str, list[tuple[Case, float, float, float]]]:
    """Each size's cases with their planned (lower, middle, upper), fitted without that size."""
    by_size: dict[str, list[tuple[Case, float, float, float]]] = {}
    for size in dict.fromkeys(map(size_of, CASES)):
        pace = fit([case for case in CASES if size_of(case) != size])
        by_size[size] = [(case, *planned(case, pace)) for case in CASES if size_of(case) == size]
    return by_size


def main() -> None:
    """Print the fit and the judgement."""
    constants = fit(CASES)._asdict().items()
    print("fitted to all:", ", ".join(f"{name} {value:.3g}" for name, value in constants))
    held = 0
    widths = []
    print("| size left out | times | in the range | middle / measured |")
    print("|---|---|---|---|")
    for size, cases in judged().items():
        inside = sum(lower <= case.step <= upper for case, lower, _middle, upper in cases)
        held += inside
        widths += [upper / lower for _case, lower, _middle, upper in cases]
        ratios = sorted(middle / case.step for case, _lower, middle, _upper in cases)
        print(f"| {size} | {len(cases)} | {inside} | {ratios[0]:.2f} to {ratios[-1]:.2f} |")
    print(f"{held} of {len(CASES)} in the range, upper / lower {median(widths):.2f} at the median")


if __name__ == "__main__":
    main()
