"""`filter:` of a spec: which rows stay, by the length, the keywords and the language of their texts."""

import re
from collections import Counter
from collections.abc import Sequence

from tuneyard.compiler.check.text_columns import TextColumns
from tuneyard.compiler.rows import Batch
from tuneyard.compiler.spec.model import Filter, Spec
from tuneyard.core.han import HAN

_HAN = re.compile(f"[{HAN}]")
_ASCII = re.compile("[A-Za-z]")


class Sieve:
    """Applies a filter to batches and counts what falls through, by reason."""

    def __init__(self, spec: Spec) -> None:
        self.wanted = wanted = spec.filter
        self.texts = TextColumns(spec)
        self.dropped = Counter[str]()
        self._keywords = _pattern(wanted.keywords)
        self._fields = [pattern for field in wanted.fields if (pattern := _pattern(field))]

    def sift(self, batch: Batch) -> Batch:
        """Return the rows of a batch that stay."""
        if self.wanted == Filter():
            return batch
        kept = []
        for number, texts in enumerate(zip(*self.texts.of(batch).values(), strict=True)):
            if reason := self._reason("\n".join(texts)):
                self.dropped[reason] += 1
            else:
                kept.append(number)
        return batch if len(kept) == len(batch) else batch.keep(kept)

    def _reason(self, text: str) -> str:
        wanted = self.wanted
        if len(text) < wanted.min:
            return "too short"
        if wanted.max is not None and len(text) > wanted.max:
            return "too long"
        if self._keywords and not self._keywords.search(text):
            return "no keyword"
        counts = [len(field.findall(text)) for field in self._fields]
        if counts and counts.index(max(counts)) != wanted.place:  # of equals the first
            return "more keywords of another part"
        return "another language" if wanted.language and not speaks(wanted.language, text) else ""


def speaks(language: str, text: str) -> bool:
    """Tell the language by script: zh where 3 letters of 10 are Han, en where 9 of 10 are ASCII."""
    letters = sum(map(str.isalpha, text))
    if language == "zh":
        return len(_HAN.findall(text)) >= 0.3 * letters > 0
    return len(_ASCII.findall(text)) >= 0.9 * letters > 0


def _pattern(keywords: Sequence[str]) -> re.Pattern[str] | None:
    """Return a pattern of whole words (Chinese has no spaces: there a part of the text is enough)."""
    if not keywords:
        return None
    before = {word: r"(?<![A-Za-z0-9])" if word[0].isascii() else "" for word in keywords}
    after = {word: r"(?![A-Za-z0-9])" if word[-1].isascii() else "" for word in keywords}
    words = [f"{before[word]}{re.escape(word)}{after[word]}" for word in keywords]
    return re.compile("|".join(words), re.IGNORECASE)
