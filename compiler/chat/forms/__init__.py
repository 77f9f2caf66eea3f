"""The forms of exports (`form` of a source): the program that wrote a file, and how its rows become examples.

A spec names the form. `data init` finds it over all rows that it reads. Reading changes no row of a source
without a form.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial

from tuneyard.compiler.chat.forms import preferred
from tuneyard.compiler.rows import Fields, ObjectRows, Rows
from tuneyard.compiler.rows.problems import Problems
from tuneyard.compiler.spec.export_forms import ExportForm, export_forms, form_named
from tuneyard.compiler.spec.file import Source
from tuneyard.core.errors import Problem
from tuneyard.core.language.message import message_of
from tuneyard.core.plugins import guarded

FEWEST = 0.5
"""The share of rows of a form, from which on the whole file has it."""
TIE = "tie"
"""Why a pair is dropped of which neither answer is better."""


AI_STUDIO, PREFERENCE = "ai_studio", "preference"


def _is_of(form: ExportForm, row: Fields) -> bool:
    with guarded(form.plugin):
        return form.has_form(row)


def _change_of(form: ExportForm) -> Callable[[Fields], Fields]:
    """The function that makes an example of a row; the errors of a plug-in name it."""
    if form.plugin is None:
        return form.change

    def change(row: Fields) -> Fields:
        with guarded(form.plugin):
            return form.change(row)

    return change


def form_names(rows: Iterable[Fields]) -> list[str]:
    """The forms of rows, for messages."""
    counts = FormCounts()
    for row in rows:
        counts.see(row)
    return list(counts.names())


class FormCounts:
    """Counts the forms of a file's rows, of which the whole file then has those of most rows."""

    def __init__(self) -> None:
        self.rows: Counter[str] = Counter()
        self.total = 0
        self.verdicts: dict[object, object] = {}

    def see(self, row: Fields) -> None:
        """Count a row as it is written in the file."""
        self.total += 1
        for name, form in export_forms().items():
            if _is_of(form, row):
                self.rows[name] += 1
                if name == PREFERENCE:
                    self.verdicts |= preferred.verdicts_of(row)

    def names(self) -> tuple[str, ...]:
        """The forms of the whole file."""
        names = []
        for name, form in export_forms().items():
            rows = self.rows[name]
            if rows and (form.by_one_row or rows >= FEWEST * self.total):
                names.append(name)
        return tuple(names)

    def source(self, source: Source) -> Source:
        """A source with the forms of its file, and with the meaning of verdicts that have a sign."""
        names = self.names()
        verdict = preferred.meaning_of_verdicts(self.verdicts) if PREFERENCE in names else {}
        return source._replace(form=names, verdict=verdict)


def examples_of(batches: Iterable[Rows], source: Source, problems: Problems) -> Iterator[Rows]:
    """Yield the rows of an export as rows of examples.

    Ties of preference data are dropped and counted. A verdict that names neither answer is a bad row. A
    number that does so stops the compile: the other numbers may mean something else, too.
    """
    changes = []
    for name in source.form:
        change = _change_of(form_named(name))
        if name == PREFERENCE:
            change = partial(preferred.with_chosen, verdict=source.verdict)
        changes.append(change)
    for rows in batches:
        lines = []
        changed_rows = []
        for number, line in enumerate(rows.lines):
            row = rows.row(number)
            changed = row
            try:
                for change in changes:
                    changed = change(changed)
            except preferred.TieError:
                problems.dropped[TIE] += 1
                continue
            except preferred.PairError as error:
                location = rows.location(number)
                problem = Problem(error.code, location, message_of(error), error.column, error.fix)
                problems.bad_row([problem], row)
                problems.fatal |= error.is_in_doubt
                continue
            lines.append(line)
            changed_rows.append(changed)
        yield ObjectRows(rows.prefix, lines, changed_rows, rows.typed)
