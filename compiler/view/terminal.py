"""`tuneyard data show --tokens`: rows of a dataset in the terminal, each token by its state.

Loss tokens are green on a terminal and between ⟦ and ⟧ elsewhere. Tokens that cutoff_len cuts are crossed
out, elsewhere between ✂ and ✂.
"""

import os
import sys
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import TextIO

from tuneyard.compiler.verify.comparison import is_dropped
from tuneyard.compiler.verify.dataset import (
    EXAMPLE,
    Settings,
    has_tokenizer,
    loaded,
)
from tuneyard.compiler.view.page_rows import TokenView
from tuneyard.compiler.view.payload import CUT, LEARNED, MASKED, PageRow, PageSide
from tuneyard.core.datasets import locate_dataset
from tuneyard.core.errors import ContentError, RequestError, counted, for_terminal
from tuneyard.core.training.training_stage import stage_fits

Marks = Mapping[int, tuple[str, str]]
"""What is written before and after tokens of a state."""
COLOURS: Marks = {
    MASKED: ("\x1b[2m", "\x1b[0m"),
    LEARNED: ("\x1b[1;32m", "\x1b[0m"),
    CUT: ("\x1b[9;31m", "\x1b[0m"),
}
BRACKETS: Marks = {MASKED: ("", ""), LEARNED: ("⟦", "⟧"), CUT: ("✂", "✂")}
LEGEND = {MASKED: "masked", LEARNED: "learned", CUT: "cut by cutoff_len"}


def marks_for(stream: TextIO) -> Marks:
    """Colours on a terminal unless NO_COLOR is set (no-color.org), brackets elsewhere."""
    return COLOURS if stream.isatty() and not os.environ.get("NO_COLOR") else BRACKETS


def token_lines(
    name: str, folder: Path, settings: Settings, row: int, rows: int, marks: Marks | None = None
) -> Iterator[str]:
    """Yield the lines on some rows of a registered dataset, from `row` (from 1, as LLaMA-Factory loads them).

    `settings` are those of a recipe or of options. `RequestError` without a model folder or without the row.
    """
    model = settings.get("model_name_or_path")
    if not has_tokenizer(model):
        raise RequestError(f"--tokens needs a model folder with a tokenizer: add --model DIR ({EXAMPLE})")
    marks = marks or marks_for(sys.stdout)
    entry = locate_dataset(name, folder).entry
    if not stage_fits(str(settings.get("stage", "sft")), entry):
        settings = {key: settings[key] for key in settings if key != "stage"}
    with loaded(name, folder, settings, workers=1) as dataset:
        loaded_rows, verdict = dataset.rows, dataset.verdict
        if loaded_rows is None:
            stop = dataset.loader_problem or verdict.problems[-1]
            raise ContentError(f"{stop.place}: {stop.message}")
        if loaded_rows.audit is None:
            raise RequestError(f"{name}: not checked: {', '.join(verdict.not_checked)}")
        rows_of_file = loaded_rows.rows
        if row > len(rows_of_file):
            raise RequestError(f"no row {row}: {name} has {counted(len(rows_of_file), 'row')}")
        tokens = TokenView(loaded_rows)
        yield from [problem.line() for problem in verdict.problems if problem.field == "template"]
        yield " · ".join(f"{begin}{LEGEND[state]}{end}" for state, (begin, end) in marks.items())
        for number in range(row, min(row + rows, len(rows_of_file) + 1)):
            values = rows_of_file[number - 1]
            if is_dropped(values, loaded_rows.data.stage):
                yield f"row {number}: LLaMA-Factory leaves it out: it finds no answer in it"
                continue
            page_row = PageRow(number, "")
            tokens.add(page_row, values)
            yield from _row_lines(page_row, marks)


def _row_lines(page_row: PageRow, marks: Marks) -> Iterator[str]:
    if page_row.note:
        yield f"row {page_row.row}: {page_row.note}"
        return
    counts = f"{counted(page_row.tokens, 'token')}, {page_row.learned} learned"
    if page_row.cut:
        counts += f", {page_row.cut} cut by cutoff_len"
    yield f"row {page_row.row}: {counts}"
    for side in page_row.sides:
        title = " ".join(word for word in (side.name, side.mark) if word)
        if title:
            yield f"{title}:"
        yield marked(side, marks)


def marked(side: PageSide, marks: Marks) -> str:
    """The text of a side with marks around the tokens of each state, its control characters escaped."""
    pieces: list[tuple[int, str]] = []
    for turn in side.turns:
        place = 0
        for length, state, *_ in turn.spans:
            pieces.append((state, for_terminal(turn.text[place : place + length])))
            place += length
    text = ""
    for state, group in groupby(pieces, key=lambda piece: piece[0]):
        begin, end = marks[state]
        text += f"{begin}{''.join(piece for _, piece in group)}{end}"
    return text
