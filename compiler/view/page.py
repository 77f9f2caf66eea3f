"""The page of `data view`: counts over all rows, and the sampled rows token by token."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tuneyard.compiler.view.payload import SEED, ViewPayload, json_of
from tuneyard.core.drawing.page import embedded, fill_page, words_of
from tuneyard.core.installation.checkout import version
from tuneyard.core.language.message import counted, joined, tr, translated
from tuneyard.core.language.number_format import percent

PAGE = Path(__file__).parent / "page"
GENERATOR = '<meta name="generator" content="Tuneyard data view">'
"""Mark in the head of every page, by which `data view` recognises its own pages."""


class FilterItem(NamedTuple):
    """A filter of the page: a value with its number of rows in the whole dataset."""

    value: str
    text: str
    rows: int
    share: str
    detail: str = ""


class Facet(NamedTuple):
    """A list of filters of one kind; `name` is what the page's script calls it."""

    name: str
    title: str
    items: Sequence[FilterItem]
    remark: str = ""

    @property
    def most(self) -> int:
        """Rows of the largest item, at least 1: the full length of a bar."""
        return max([1, *(item.rows for item in self.items)])


class LengthBar(NamedTuple):
    """A bar of the histogram. `height` is in percent of the highest.

    `value` is the bin as the page's script reads it.
    `style` is over for bins of rows that cutoff_len cuts, otherwise within.
    """

    start: int
    end: int
    value: str
    text: str
    label: str
    height: float
    style: str


class StateShare(NamedTuple):
    """A state's part of all tokens, in percent; `state` is its class in the style sheet."""

    state: str
    name: str
    figures: str
    start: float
    percent: float


def render_page(payload: ViewPayload) -> str:
    """The page's HTML, in the current language. Lone surrogates in the rows become `?`."""
    shares = _shares(payload)
    words = json.dumps(words_of(PAGE), ensure_ascii=False)
    return fill_page(
        PAGE,
        mark=GENERATOR,
        tr=tr,
        dataset=payload.dataset,
        sentence=sentence(payload),
        setup=_setup(payload),
        shares=shares,
        shares_text=joined([f"{share.name} {share.figures}" for share in shares]),
        note=translated(payload.note),
        has_tokens=bool(payload.model),
        has_losses=any(row.loss is not None for row in payload.rows),
        bins=_bins(payload),
        cutoff_at=_cutoff_at(payload),
        cutoff_text=_cutoff_text(payload),
        facets=_facets(payload),
        sampled=sampled_text(payload),
        made_by=tr("Made by Tuneyard {version}", version=version()["version"]),
        data=embedded(f'{{"view":{json_of(payload)},"words":{words}}}'),
    )


def percentage(part: int, whole: int) -> str:
    """A share for readers: `3.1 %`, `<0.1 %` if it would be rounded to nothing."""
    if whole == 0:
        return "0 %"
    share = part / whole
    if 0 < share < 0.0005:
        return f"<{percent(0.001)}"
    return percent(share)


def sentence(payload: ViewPayload) -> str:
    """The counts over all rows, in the language of the reader."""
    rows = counted(payload.all_rows, "row", "rows")
    if not payload.model:
        return tr("{rows}, shown without tokens.", rows=rows)
    tokens = counted(payload.tokens, "token", "tokens")
    share = percentage(payload.learned, payload.tokens)
    return tr("{rows}, {tokens}, of which {share} are learned.", rows=rows, tokens=tokens, share=share)


def _setup(payload: ViewPayload) -> list[tuple[str, str]]:
    """File, model and the settings that decide which tokens are learned, by their names in a recipe."""
    setup = [(tr("File"), payload.file)]
    if payload.model:
        setup += [
            (tr("Model"), payload.model),
            ("template", translated(payload.template)),
            ("stage", payload.stage),
            ("cutoff_len", f"{payload.cutoff_len:,}"),
        ]
    return setup


def _shares(payload: ViewPayload) -> list[StateShare]:
    if not payload.tokens:
        return []
    masked = payload.tokens - payload.learned - payload.cut
    shares = []
    start = 0.0
    for state, name, tokens in (
        ("learned", tr("learned"), payload.learned),
        ("masked", tr("masked"), masked),
        ("cut", tr("cut off"), payload.cut),
    ):
        width = 100 * tokens / payload.tokens
        figures = f"{tokens:,} ({percentage(tokens, payload.tokens)})"
        shares.append(StateShare(state, name, figures, start, width))
        start += width
    return shares


def _bins(payload: ViewPayload) -> list[LengthBar]:
    highest = max([1, *(rows for _unused, _unused, rows in payload.bins)])
    bins = []
    for start, end, rows in payload.bins:
        text = tr("{start} to {end} tokens", start=f"{start:,}", end=f"{end:,}")
        label = tr("{tokens}: {rows}", tokens=text, rows=counted(rows, "row", "rows"))
        style = "within"
        if payload.over_cutoff and payload.cutoff_len < start:
            style = "over"
        height = 100 * rows / highest
        if rows > 0:
            height = max(height, 2.0)  # a single row is visible next to thousands
        bins.append(LengthBar(start, end, f"{start}-{end}", text, label, height, style))
    return bins


def _cutoff_at(payload: ViewPayload) -> float | None:
    """Place of cutoff_len in percent of the histogram's width; None if it is not within the bars."""
    for number, (start, end, _rows) in enumerate(payload.bins):
        if start <= payload.cutoff_len <= end:
            within = (payload.cutoff_len - start + 1) / (end - start + 1)
            return 100 * (number + within) / len(payload.bins)
    return None


def _cutoff_text(payload: ViewPayload) -> str:
    cutoff = f"{payload.cutoff_len:,}"
    if payload.over_cutoff == 0:
        return tr("cutoff_len {cutoff} cuts no row.", cutoff=cutoff)
    return tr(
        "cutoff_len {cutoff} (dashed line) cuts {rows}.",
        cutoff=cutoff,
        rows=counted(payload.over_cutoff, "row", "rows"),
    )


def _facets(payload: ViewPayload) -> list[Facet]:
    rows = payload.all_rows
    labels = [FilterItem(name, name, count, percentage(count, rows)) for name, count in payload.labels]
    names = {"cut": tr("cut off"), "dropped": tr("dropped")}
    problems = [
        FilterItem(
            problem.code,
            names.get(problem.code, problem.code),
            problem.rows,
            percentage(problem.rows, rows),
            translated(problem.message),
        )
        for problem in payload.problems
    ]
    facets = []
    if labels:
        facets.append(Facet("label", tr("Labels"), labels))
    remark = "" if problems else tr("✓ No problem in any row.")
    facets.append(Facet("problem", tr("Problems"), problems, remark))
    return facets


def sampled_text(payload: ViewPayload) -> str:
    """How many of the rows are on the page."""
    if len(payload.rows) >= payload.all_rows:
        return tr("All rows are on this page.")
    text = tr(
        "The figures count all {rows}. This page shows {shown} of them, sampled with seed {seed}.",
        rows=counted(payload.all_rows, "row", "rows"),
        shown=f"{len(payload.rows):,}",
        seed=SEED,
    )
    if payload.left_off:
        text += " " + tr(
            "{rows} more would make it too large.", rows=counted(payload.left_off, "row", "rows")
        )
    return text
