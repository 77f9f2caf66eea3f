"""The rows of the page: which are sampled, and their tokens, codes, pictures and losses."""

import heapq
import json
import random
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from tuneyard.compiler.verify.audit import Row
from tuneyard.compiler.verify.comparison import compare_rows, is_dropped
from tuneyard.compiler.verify.dataset import LoadedRows
from tuneyard.compiler.verify.verdict import Verdict
from tuneyard.compiler.view.encoding import RowEncoder, TokenSequence
from tuneyard.compiler.view.payload import CUT, LEARNED, PageRow
from tuneyard.compiler.view.scan import FIRST_ROWS, Scan, label_of, numbered_records, source_of
from tuneyard.compiler.view.thumbnails import thumbnails
from tuneyard.compiler.view.turns import PageTurns
from tuneyard.core.datasets import Dataset
from tuneyard.core.errors import ContentError, one_line, show_value
from tuneyard.core.llamafactory import expected_errors, quiet
from tuneyard.core.records import Example

if TYPE_CHECKING:
    from tuneyard.core.token_losses import TokenLossFile

BATCH = 100
DROPPED, CUT_CODE = "dropped", "cut"
"""Codes of the page for rows that LLaMA-Factory leaves out, and for rows of which it cuts tokens."""
PACKED = (
    "LLaMA-Factory packs texts into blocks of cutoff_len tokens. The last tokens of a batch may be left over"
)
Record = Mapping[str, object]


def rows_for_page(
    verdict: Verdict,
    scan: Scan,
    loaded: LoadedRows | None,
    most: int,
    seed: int,
    losses: "TokenLossFile | None" = None,
) -> list[int]:
    """The numbers (from 0) of the rows of the page: a sample, and the first rows of each code.

    With losses, the sample is of the scored rows, and the rows with the highest loss come with it. The sample
    is the same for the same seed and number of rows.
    """
    rows: Sequence[int] = range(scan.rows)
    if loaded and loaded.numbers is not None:
        rows = loaded.numbers
    chosen = set()
    if losses is not None:
        in_the_dataset = frozenset(rows)
        scored = [row - 1 for row in losses.rows if row - 1 in in_the_dataset]
        if scored:
            rows = scored
            chosen.update(rows_of_highest_loss(scored, losses))
    chosen.update(random.Random(seed).sample(rows, min(most, len(rows))))
    for first_rows in scan.first_rows.values():
        chosen.update(first_rows)
    first_of_code: dict[str, set[int]] = {}
    for row, code in _codes_of_places(verdict, scan):
        rows_of_code = first_of_code.setdefault(code, set())
        if len(rows_of_code) < FIRST_ROWS:
            rows_of_code.add(row)
    for rows_of_code in first_of_code.values():
        chosen |= rows_of_code
    return sorted(chosen)


def rows_of_highest_loss(scored: Sequence[int], losses: "TokenLossFile") -> list[int]:
    """The numbers (from 0) of the rows with the highest mean loss: where labels may be wrong."""
    loss_and_row = []
    for row in scored:
        token_losses = losses.read(row + 1)
        if token_losses and token_losses.mean is not None:
            loss_and_row.append((token_losses.mean, row))
    return [row for _, row in heapq.nlargest(FIRST_ROWS, loss_and_row)]


def _codes_of_places(verdict: Verdict, scan: Scan) -> Iterator[tuple[int, str]]:
    """Yield (row, code) of the problems that `verify` found and kept, if they are a row's."""
    for problem in verdict.problems:
        if problem.place in scan.row_of_place:
            yield scan.row_of_place[problem.place], problem.code


@dataclass(slots=True)
class RowView:
    """A record with its example and its row for the page. `example` is a text if the record is lost."""

    number: int
    record: Record
    example: Example | str
    page_row: PageRow

    def add_code(self, code: str) -> None:
        """Add a code once."""
        if code not in self.page_row.problems:
            self.page_row.problems.append(code)


def page_rows(
    dataset: Dataset,
    chosen: Sequence[int],
    scan: Scan,
    verdict: Verdict,
    loaded: LoadedRows | None,
    losses: "TokenLossFile | None" = None,
) -> Iterator[PageRow]:
    """Yield the chosen rows in their order. Without `loaded`, or without its auditor, they have no tokens."""
    codes_of_row: dict[int, list[str]] = {}
    for row, code in _codes_of_places(verdict, scan):
        codes_of_row.setdefault(row, []).append(code)
    tokens = None
    if loaded and loaded.audit:
        tokens = TokenView(loaded, losses)
    records = numbered_records(dataset, frozenset(chosen))
    while True:
        views = []
        for row, _, record, example in islice(records, BATCH):
            view = RowView(row, record, example, _page_row(row, record, example, scan))
            for code in [*scan.codes(row, example), *codes_of_row.get(row, ())]:
                view.add_code(code)
            views.append(view)
        if not views:
            return
        if loaded:
            add_loaded(views, loaded, verdict, tokens)
        for view in views:
            yield view.page_row


def _page_row(row: int, record: Record, example: Example | str, scan: Scan) -> PageRow:
    label = ""
    if scan.labels:
        label = label_of(example)
    source = ""
    if scan.sources:
        source = source_of(record)
    return PageRow(
        row=row + 1,
        raw=raw_text(record),
        label=label,
        source=source,
        duplicate=row in scan.duplicates,
        leak=[split for split, rows in scan.leaked.items() if row in rows],
    )


def raw_text(record: Record) -> str:
    """A record as JSON on one line. Halves of characters, which cannot be written, stay escaped."""
    try:
        text = json.dumps(record, ensure_ascii=False, default=str)
    except (RecursionError, ValueError):
        text = show_value(record)
    return text.encode(errors="backslashreplace").decode()


def add_loaded(
    views: Sequence[RowView], loaded: LoadedRows, verdict: Verdict, tokens: "TokenView | None"
) -> None:
    """Add to rows what LLaMA-Factory makes of them."""
    loaded_views = []
    places = []
    for view in views:
        place = view.number
        if loaded.numbers is not None:
            place = bisect_left(loaded.numbers, place)
        if place < len(loaded.rows):
            loaded_views.append(view)
            places.append(place)
        else:  # as `verify` reports it: rows are compared in their order, and the last ones are missing
            view.add_code(DROPPED)
            view.page_row.dropped = "the loader leaves this record out"
    if not loaded_views:
        return
    views = loaded_views
    rows = loaded.rows.select(places)
    compared = Verdict(verdict.dataset, stage=verdict.stage, why_no_answer=verdict.why_no_answer)
    records = ((str(place), view.example) for place, view in enumerate(views))
    compare_rows(rows, range(0, len(views), len(views)), records, compared)
    for problem in compared.problems:
        view = views[int(problem.place)]
        view.add_code(problem.code)
        if problem.code == "E406":
            view.page_row.dropped = problem.message
    batch: Row = rows[:]
    if tokens:
        for place, code in tokens.codes(batch):
            views[place].add_code(_graded(code, verdict))
    for place, view in enumerate(views):
        row = {name: values[place] for name, values in batch.items()}
        if is_dropped(row, verdict.stage):
            view.add_code(DROPPED)
            continue
        view.page_row.images = thumbnails(row["_images"] or ())
        if tokens:
            tokens.add(view.page_row, row)
            if view.page_row.cut:
                view.add_code(CUT_CODE)


def _graded(code: str, verdict: Verdict) -> str:
    """The error of a warning's number if `verify` made it one because all rows have it."""
    error = f"E{code[1:]}"
    if error in verdict.counts and code not in verdict.counts:
        return error
    return code


class TokenView:
    """Adds tokens, their states and losses to rows. `loaded` has a template and a tokenizer."""

    def __init__(self, loaded: LoadedRows, losses: "TokenLossFile | None" = None) -> None:
        self.audit = loaded.audit
        self.has_media = loaded.data.module.get("processor") is not None
        self.encoder = RowEncoder(loaded.data)
        self.turns = PageTurns(loaded.data.template, self.encoder.tokenizer)
        self.losses = losses

    def codes(self, batch: Row) -> Iterator[tuple[int, str]]:
        """Yield (place in the batch, code) of the audit. Media are decoded once, by `verify`, not again."""
        if self.audit is None or self.has_media:
            return
        with quiet():
            places_of_code = self.audit(batch, 0).places
        for code, places in places_of_code.items():
            for place in places:
                yield place, code

    def add(self, page_row: PageRow, row: Mapping[str, Any]) -> None:
        """Add the sequences of one row as LLaMA-Factory makes them; a note if it stops at the row."""
        try:
            with quiet():
                sequences = self.encoder.encode(row)
        except ContentError as error:
            page_row.note = str(error)
            return
        except expected_errors() as error:
            page_row.note = one_line(f"LLaMA-Factory's processor stops at this row: {error}")[:300]
            return
        if self.encoder.is_packed_text:
            page_row.note = PACKED
        losses = self._losses(page_row, sequences)
        for sequence in sequences:
            states = sequence.states
            page_row.tokens += len(states)
            page_row.learned += states.count(LEARNED)
            page_row.cut += states.count(CUT)
            page_row.sides.append(self.turns.side(sequence, losses))

    def _losses(self, page_row: PageRow, sequences: Sequence[TokenSequence]) -> Sequence[float | None] | None:
        """The losses of the tokens that are trained on, None without them."""
        if self.losses is None or len(sequences) != 1:
            return None
        scored = self.losses.read(page_row.row)
        if scored is None:
            page_row.note = "no losses: this row was not scored"
            return None
        if list(scored.ids) != sequences[0].trained_ids:
            page_row.note = (
                "no losses: it was scored with other tokens (another model, template or cutoff_len)"
            )
            return None
        page_row.loss = scored.mean
        return scored.losses
