"""Counts over the records of a dataset: labels, duplicates, conflicts, codes of the lint.

Texts are compared by the function of `compile` and `stats`. Memory holds the keys of the rows.
"""

from array import array
from collections import Counter
from collections.abc import Iterable

from tuneyard.compiler.lint import RowTexts
from tuneyard.compiler.lint.example_keys import keys_of_examples
from tuneyard.compiler.lint.fingerprints import Fingerprints
from tuneyard.compiler.lint.repeated_rows import CONFLICT, REPEATED_ROW
from tuneyard.compiler.lint.runner import text_lints
from tuneyard.compiler.read.dataset_reader import MOST_LABELS, few, label_of
from tuneyard.compiler.rows import Prefix
from tuneyard.compiler.verify.expect import Records
from tuneyard.core.plugins import guarded
from tuneyard.core.records import PLACEHOLDERS, ChatMessage, Example


class Scan:
    """Counts over the records of a dataset. Rows are counted from 0, as LLaMA-Factory loads them.

    - `rows`: the number of rows.
    - `labels`: rows by label; empty if there are many.
    - `rows_of_code`: the rows that have a code of the lint, with W202 those that came before.
    """

    def __init__(self) -> None:
        self.rows = 0
        self.labels: Counter[str] = Counter()
        self.rows_of_code: dict[str, array[int]] = {}
        self._keys = {"prompts": array("q"), "answers": array("I")}

    def counted(self, records: Records) -> Records:
        """Yield records on, each counted."""
        for record in records:
            self._count(record[-1])
            yield record

    def _count(self, example: Example | str) -> None:
        """Count a record. `example` is the reason if LLaMA-Factory loses it."""
        row = self.rows
        self.rows += 1
        if len(self.labels) <= MOST_LABELS:
            self.labels[label_of(example)] += 1
        if isinstance(example, str):  # lost: it equals no other row
            example = Example([ChatMessage("lost", f"{row}")], [])
        else:
            answers = [answer.text for answer in example.answers]
            texts = [example.system, *(message.text for message in example.messages), *answers]
            placeholders = [PLACEHOLDERS[kind] for kind in example.media]
            row_texts = RowTexts(texts, answers, placeholders)
            for lint in text_lints():
                with guarded(lint.plugin):
                    is_at_fault = bool(lint.find(row_texts))
                if is_at_fault:
                    self._add(lint.codes[0], [row])
        for column, keys in keys_of_examples([example]).items():
            self._keys[column].extend(keys)

    def compare(self) -> None:
        """Find duplicates and conflicts."""
        fingerprints = Fingerprints()
        fingerprints.add(Prefix(""), range(self.rows), self._keys)
        repeats, conflicts = fingerprints.repeats()
        self._add(REPEATED_ROW, (row for row, _unused in repeats))
        self._add(CONFLICT, (row for row, _unused in conflicts))
        self.labels = few(self.labels)

    def _add(self, code: str, rows: Iterable[int]) -> None:
        for row in rows:
            self.rows_of_code.setdefault(code, array("I")).append(row)
