"""Memory and time of fine-tuning as others published them, and constants that are fitted to the times."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import yaml
from scipy.optimize import least_squares

from testing import ROOT
from tuneyard.recipes.costs import (
    BF16,
    KEPT_BY_ADAPTER,
    KEPT_BY_WEIGHTS,
    PACE,
    Pace,
    Setup,
    Shapes,
    duration,
    flops,
)
from tuneyard.recipes.machine.hardware import GPUS

PUBLISHED = yaml.safe_load((ROOT / "tests/golden/recipes/published.yaml").read_text(encoding="utf-8"))
GATHERED = 8
MASTER_COPY: dict[str, Any] = {"trained_bytes": BF16, "optimizer_bytes": 12}  # of DeepSpeed, in fp32


class Case(NamedTuple):
    """One published training: what it is, and what it took."""

    name: str
    shapes: Shapes
    setup: Setup
    gigabytes: float
    step: float


def cases() -> Iterator[Case]:
    for one in PUBLISHED["measured"]:
        hidden, layers, width, vocabulary = PUBLISHED["models"][one["model"]]
        linear = layers * (4 * hidden**2 + 3 * hidden * width)
        whole = linear + 2 * vocabulary * hidden + layers * 5 * hidden + hidden
        lora = 64 * layers * (9 * hidden + 3 * width)
        trained = lora + (2 * vocabulary * hidden if one.get("vocabulary") else 0)
        shapes = Shapes(
            whole, whole if one.get("full") else trained, linear, hidden, width, layers, vocabulary
        )
        for tokens, (gigabytes, step) in one["at"].items():
            setup = Setup(
                tokens=tokens, full=one.get("full", False), bits=one.get("bits", 16), ranks=one["gpus"],
                stage=one.get("stage", 0), offload_optimizer=False, offload_weights=False, recompute=True,
                kept=KEPT_BY_WEIGHTS if one.get("full") else KEPT_BY_ADAPTER,
                **(MASTER_COPY if one.get("full") and one.get("stage") else {"optimizer_bytes": 8}),
            )  # fmt: skip
            description = ", ".join(f"{key} {value}" for key, value in one.items() if key != "at")
            yield Case(f"{description}, {tokens} tokens", shapes, setup, gigabytes / one["gpus"], step)


CASES = list(cases())


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
