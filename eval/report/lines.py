"""Figures of results.json in the lines that scoring commands print."""

from collections.abc import Mapping

from tuneyard.core.language.message import _
from tuneyard.eval.runs.results import (
    Results,
)


def accuracy_line(results: Results) -> str:
    """Format accuracy, 95 % interval, n and the share of the most common answer, as commands print them."""
    low, high = results["ci95"]
    majority = f"{results['majority']:.1%}"
    if results["majority"] == 1:  # no baseline: it is the only expected answer
        majority = _("none")
    return _(
        "{accuracy:.1%} [{low:.1%}, {high:.1%}]  n {n}  majority {majority}",
        accuracy=results["accuracy"],
        low=low,
        high=high,
        n=results["n"],
        majority=majority,
    )


def share_line(share: Results) -> str:
    """Format a rate of results.json with its limits: `85.0% [80.1%, 89.2%]`."""
    low, high = share["ci95"]
    return f"{share['value']:.1%} [{low:.1%}, {high:.1%}]"


def labelled_shares(results: Results, labels: Mapping[str, str]) -> list[str]:
    """Each rate that could be measured, after its label: `valid JSON 90.0% [69.9%, 97.2%] of 20`."""
    parts: list[str] = []
    for name, label in labels.items():
        share = results.get(name)
        if share:
            parts.append(_("{label} {share} of {n}", label=label, share=share_line(share), n=share["n"]))
    return parts
