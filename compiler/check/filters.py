"""`filter:` and `empty:` of a spec: which rows stay, by their texts and by whether they have an answer."""

import re
from collections.abc import Mapping, Sequence

from tuneyard.compiler.check.text_columns import TextColumns
from tuneyard.compiler.rows import Batch
from tuneyard.compiler.rows.counts import Counts
from tuneyard.compiler.spec.model import Spec
from tuneyard.core.language.han import HAN
from tuneyard.core.language.message import marked

_ASCII_LETTER = re.compile("[A-Za-z]")
_ASCII = re.compile("[\x00-\x7f]+")
_NO_LETTERS = bytes(code for code in range(128) if not chr(code).isalpha())


class RowFilter:
    """Applies `filter:` and `empty:` of a spec to batches, and counts the dropped rows by reason."""

    def __init__(self, spec: Spec, counts: Counts) -> None:
        self.settings = spec.filter
        self.texts = TextColumns(spec)
        self.empty = {_without_blanks(text) for text in (*spec.empty, "")} if spec.empty else set()
        self.counts = counts
        self._keywords = _pattern(spec.filter.keywords)
        self._taken = _pattern(spec.filter.taken) if spec.filter.taken else None

    def kept(self, batch: Batch) -> Batch:
        """The rows of a batch that pass the filter."""
        kept_rows = []
        columns = self.texts.of(batch)
        unanswered = self._unanswered(batch, columns) if self.empty else set()
        for number, texts in enumerate(zip(*columns.values(), strict=True)):
            reason = self._reason("\n".join(texts))
            if number in unanswered:
                reason = marked("no answer")
            if reason:
                self.counts.drop(reason, 1)
            else:
                kept_rows.append(number)
        return batch.keep(kept_rows)

    def _unanswered(self, batch: Batch, columns: Mapping[str, Sequence[str]]) -> set[int]:
        """The numbers of the rows with null, a blank text or one of `empty:` as an answer."""
        numbers = set()
        for name in self.texts.completion_columns:
            values = batch.columns.get(name, columns[name])
            for number, (value, text) in enumerate(zip(values, columns[name], strict=True)):
                if value is None or _without_blanks(text) in self.empty:
                    numbers.add(number)
        return numbers

    def _reason(self, text: str) -> str:
        """Why a row with this text is dropped, "" if it stays."""
        settings = self.settings
        if len(text) < settings.min:
            return marked("too short")
        if settings.max is not None and len(text) > settings.max:
            return marked("too long")
        if not self._keywords.search(text):
            return marked("no keyword")
        if self._taken is not None and self._taken.search(text):
            return marked("keywords of an earlier part")
        if settings.language and language_of(text) != settings.language:
            return marked("another language")
        return ""


def _without_blanks(text: str) -> str:
    """A text for a comparison with `empty:`: "N / A" is "n/a"."""
    return "".join(text.split()).lower()


def language_of(text: str) -> str:
    """The language of a text by script: zh if 3 of 10 letters are Han, en if 9 of 10 are ASCII, else ""."""
    if text.isascii():
        return "en" if _ASCII_LETTER.search(text) else ""
    ascii_letters = len(text.encode("ascii", "ignore").translate(None, _NO_LETTERS))
    others = _ASCII.sub("", text)
    letters = ascii_letters + sum(map(str.isalpha, others))
    if sum(map(len, re.findall(f"[{HAN}]+", others))) >= 0.3 * letters > 0:
        return "zh"
    return "en" if ascii_letters >= 0.9 * letters > 0 else ""


def _pattern(keywords: Sequence[str]) -> re.Pattern[str]:
    """A pattern for whole words. Chinese has no spaces, so that any part of a text matches.

    Without keywords every text matches.
    """
    patterns = []
    for word in keywords:
        pattern = re.escape(word)
        if word[0].isascii():
            pattern = rf"(?<![A-Za-z0-9]){pattern}"
        if word[-1].isascii():
            pattern = rf"{pattern}(?![A-Za-z0-9])"
        patterns.append(pattern)
    return re.compile("|".join(patterns), re.IGNORECASE)
