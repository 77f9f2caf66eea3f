"""The rows of the page: which are sampled, and their tokens, codes, pictures and losses."""

import heapq
import random
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tuneyard.compiler.read.dataset_reader import label_of, raw_text, single_records
from tuneyard.compiler.verify.audit import Row
from tuneyard.compiler.verify.comparison import LEFT_OUT, is_dropped
from tuneyard.compiler.verify.dataset import LoadedRows
from tuneyard.compiler.verify.expect import example_or_loss
from tuneyard.compiler.verify.verdict import Verdict
from tuneyard.compiler.view.encoding import RowEncoder, TokenSequence
from tuneyard.compiler.view.page_blocks import PageBlocks
from tuneyard.compiler.view.payload import CUT, LEARNED, PageRow
from tuneyard.compiler.view.scan import Scan
from tuneyard.compiler.view.thumbnails import thumbnails
from tuneyard.core.datasets import Dataset
from tuneyard.core.errors import ContentError, ProblemsError
from tuneyard.core.language.message import _, message_of, tr, translated
from tuneyard.core.llamafactory.loader import expected_errors, quiet
from tuneyard.core.records import Example, RecordReader, format_of_entry
from tuneyard.core.text.quoting import one_line

if TYPE_CHECKING:
    from tuneyard.core.llamafactory.prompt.token_losses import TokenLossFile
    from tuneyard.core.llamafactory.prompt.token_weights import TokenWeights

FIRST_ROWS = 50
"""So many rows of each code are on the page."""
DROPPED, CUT_CODE = "dropped", "cut"
"""Codes of the page for rows that LLaMA-Factory leaves out, and for rows of which it cuts tokens."""
PACKED = _(
    "LLaMA-Factory packs texts into blocks of cutoff_len tokens. The last tokens of a batch may be left over"
)


class PageRows:
    """Chooses and makes the rows of the page. Without `loaded`, or without its auditor, they have no tokens.

    `codes` has the codes of each row of the page, in the order of the rows: a sample, the first rows of each
    code and, with losses, the rows with the highest loss. The sample is the same for the same seed and number
    of rows.
    """

    def __init__(
        self, scan: Scan, verdict: Verdict, loaded: LoadedRows | None, losses: "TokenLossFile | None"
    ) -> None:
        self.scan, self.verdict, self.loaded, self.losses = scan, verdict, loaded, losses
        self.rows_of_code = scan.rows_of_code | verdict.rows_of_code
        self.codes: dict[int, list[str]] = {}
        self.picture_folders: Sequence[Path] = ()
        self.tokens = None
        if loaded and loaded.audit:
            self.tokens = TokenView(loaded, losses)

    def choose(self, most: int, seed: int) -> None:
        """Choose the rows of the page, with a sample of at most `most`, of the scored rows with losses."""
        rows: Sequence[int] = range(self.scan.rows)
        chosen: set[int] = set()
        if self.losses is not None:
            scored = [row for row in rows if row + 1 in self.losses]
            if scored:
                rows = scored
                loss_and_row = []  # where labels may be wrong
                for row in scored:
                    token_losses = self.losses.read(row + 1)
                    if token_losses and token_losses.mean is not None:
                        loss_and_row.append((token_losses.mean, row))
                chosen.update(row for _unused, row in heapq.nlargest(FIRST_ROWS, loss_and_row))
        chosen.update(random.Random(seed).sample(rows, min(most, len(rows))))
        for code_rows in self.rows_of_code.values():
            chosen.update(code_rows[:FIRST_ROWS])
        self.codes = {row: [] for row in sorted(chosen)}
        for code, code_rows in self.rows_of_code.items():
            for row in chosen.intersection(code_rows):
                self.codes[row].append(code)

    def read(self, dataset: Dataset) -> Iterator[PageRow]:
        """Yield the chosen rows in their order, as far as the file can be read."""
        reader = RecordReader(format_of_entry(dataset.entry))
        records = enumerate(single_records(dataset.path, dataset.name))
        chosen = (record for row, (_unused, record) in records if row in self.codes)
        with suppress(ProblemsError):  # at the end of the file; `verify` reports what cannot be read
            for row, record in zip(self.codes, chosen, strict=False):
                example = example_or_loss(reader, record)
                page_row = PageRow(
                    row=row + 1,
                    raw=raw_text(record),
                    label=label_of(example) if self.scan.labels else "",
                    problems=self.codes[row],
                )
                if self.loaded:
                    self._add_loaded(row, page_row, example, self.loaded)
                yield page_row

    def _add_loaded(self, row: int, page_row: PageRow, example: Example | str, loaded: LoadedRows) -> None:
        """Add to a row what LLaMA-Factory makes of it. It may have left it out."""
        if row >= len(loaded.rows):
            page_row.dropped = translated(LEFT_OUT)
            page_row.problems.append(DROPPED)
            return
        values = loaded.rows[row]
        if is_dropped(values, self.verdict.stage):
            page_row.dropped = translated(self.verdict.no_answer)
            page_row.problems.append(DROPPED)
        else:
            page_row.images, outside = thumbnails(values["_images"] or (), self.picture_folders)
            if self.tokens:
                self.tokens.add(page_row, values)
            if outside and not page_row.note:
                page_row.note = tr(
                    "{path} is not shown: it lies outside of the dataset's folders; --media-dir DIR names "
                    "the folder of its pictures",
                    path=outside,
                )
            if page_row.cut:
                page_row.problems.append(CUT_CODE)
        if isinstance(example, str):
            page_row.dropped = translated(example)


class TokenView:
    """Adds tokens, their states, losses and weights to rows. `loaded` has a template and a tokenizer.

    `weights` are the key-token weights of a recipe that trains the rows.
    """

    def __init__(self, loaded: LoadedRows, losses: "TokenLossFile | None") -> None:
        self.encoder = RowEncoder(loaded.data)
        self.page_blocks = PageBlocks(loaded.data.template, self.encoder.tokenizer)
        self.losses = losses
        self.weights: TokenWeights | None = None

    def add(self, page_row: PageRow, row: Row) -> None:
        """Add the sequences of one row as LLaMA-Factory makes them; a note if it stops at the row."""
        try:
            with quiet():
                sequences = self.encoder.encode(row)
        except ContentError as error:
            page_row.note = translated(message_of(error))
            return
        except expected_errors() as error:
            page_row.note = tr(
                "LLaMA-Factory's processor stops at this row: {error}", error=one_line(str(error))[:250]
            )
            return
        if self.encoder.is_packed_text:
            page_row.note = translated(PACKED)
        losses = self._losses(page_row, sequences)
        for sequence in sequences:
            states = sequence.states
            page_row.tokens += len(states)
            page_row.learned += states.count(LEARNED)
            page_row.cut += states.count(CUT)
            weights = None
            if self.weights is not None:
                weights = self.weights.of_labels(sequence.labels, self.encoder.tokenizer.decode)
            page_row.sides.append(self.page_blocks.side(sequence, losses, weights))

    def _losses(self, page_row: PageRow, sequences: Sequence[TokenSequence]) -> Sequence[float | None] | None:
        """The losses of the tokens that are trained on, None without them."""
        if self.losses is None or len(sequences) != 1:
            return None
        scored = self.losses.read(page_row.row)
        if scored is None:
            page_row.note = tr("no losses: this row was not scored")
            return None
        if list(scored.ids) != sequences[0].trained_ids:
            page_row.note = tr(
                "no losses: it was scored with other tokens (another model, template or cutoff_len)"
            )
            return None
        page_row.loss = scored.mean
        return scored.losses
