"""What raters' marks say, as Markdown and as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from eval.reports.numbers import NONE, Table, grid, interval, p_cell, show_p
from eval.statistics.family import ALPHA
from eval.statistics.ratings import CRITERIA, OVERALL, Outcome, Rating, agreement, mean_marks, outcomes

HEADER = ["", "criterion", "won", "tied", "lost", "won of the decided (95 %)", "p", "p, Holm"]
METHOD = (
    "A prompt is won by the better mean mark over the raters who marked both answers; overall takes the "
    "mean of the criteria. p is the exact two-sided sign test's, over the prompts that are no tie "
    "(of prompts in clusters that of sign flips by cluster, and the interval is by cluster too); Holm's "
    "correction is over the models (overall), and over models and criteria (the others, which describe)."
)


def tally_table(ratings: Sequence[Rating], models: Sequence[str], clusters: Mapping[int, str]) -> str:
    """Return the verdicts, wins by criterion, mean marks, and the raters' agreement; `clusters` are those of
    the prompts (from 1) that are not independent."""
    found = outcomes(ratings, models, clusters)
    parts = [verdict(one) for one in found if one.criterion == OVERALL]
    parts += [grid(Table(HEADER, [_row(one) for one in found])), METHOD]
    marks = {model: mean_marks(ratings, model) for model in models}
    rows = [[model, *(_number(own[criterion]) for criterion in CRITERIA)] for model, own in marks.items()]
    if len({rating.rater for rating in ratings}) > 1:
        rows.append(["agreement", *(_number(agreement(ratings, criterion)) for criterion in CRITERIA)])
    parts.append(grid(Table(["mean mark", *CRITERIA], rows)))
    return "\n\n".join(parts) + "\n"


def verdict(one: Outcome) -> str:
    """Return an overall outcome as a sentence."""
    counted = f"{one.wins} prompts won, {one.losses} lost, {one.ties} tied"
    if one.share is None:
        return f"No difference between {one.model} and {one.against}: {counted}."
    chance = f"p {show_p(one.p_holm)}"
    if one.p_holm >= ALPHA:
        return f"No evidence of a difference between {one.model} and {one.against}: {counted} ({chance})."
    better, worse = (one.model, one.against) if one.wins > one.losses else (one.against, one.model)
    return f"{better} is rated better than {worse}: for {one.model} {counted} ({chance})."


def tally_json(
    ratings: Sequence[Rating], models: Sequence[str], clusters: Mapping[int, str]
) -> dict[str, object]:
    """Return the tally as plain JSON values."""
    found = outcomes(ratings, models, clusters)
    return {
        "models": list(models),
        "raters": sorted({rating.rater for rating in ratings}),
        "prompts": len({rating.prompt for rating in ratings}),
        "clusters": len(set(clusters.values())) or None,
        "verdicts": [verdict(one) for one in found if one.criterion == OVERALL],
        "outcomes": [asdict(one) for one in found],
        "mean_marks": {model: mean_marks(ratings, model) for model in models},
        "krippendorff_alpha": {criterion: agreement(ratings, criterion) for criterion in CRITERIA},
    }


def _row(one: Outcome) -> list[str]:
    counts = [str(one.wins), str(one.ties), str(one.losses)]
    chances = map(p_cell, (one.p, one.p_holm))
    return [f"{one.model} − {one.against}", one.criterion, *counts, interval(one.share), *chances]


def _number(value: float | None) -> str:
    return NONE if value is None else f"{value:.2f}"
