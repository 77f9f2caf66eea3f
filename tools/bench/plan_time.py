"""python -m tools.bench.plan_time   fit the constants of `recipes.costs.duration` to published times.

Prints the constants of all sizes, then judges each model size by constants that were fitted without it: how
many of its published times lie in the range, and how wide the range is.

Run it when a published time is added to or taken from the golden ones.
"""

from statistics import median

from testing.published_costs import CASES, fit, judged


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
