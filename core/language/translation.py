"""The texts of tables, plots, verdicts and the page in another language (zh.json), by their English."""

from collections.abc import Sequence

from tuneyard.core.language.han import closed_up
from tuneyard.core.language.messages import catalogue, current
from tuneyard.core.text.words import counted


class Translated(str):
    """A text in the language of its reader that keeps its English for JSON, which programs read."""

    __slots__ = ("english",)
    english: str

    def __new__(cls, text: str, english: str) -> "Translated":
        """Join both wordings of one text."""
        translated = super().__new__(cls, text)
        translated.english = english
        return translated

    def __getnewargs__(self) -> tuple[str, str]:  # type: ignore[override]  # a text has one wording
        """Both wordings, for copies (`dataclasses.asdict`) and for other processes."""
        return str(self), self.english


def in_english(text: object) -> object:
    """English wording of a text from `tr`. Any other value is returned unchanged."""
    if isinstance(text, Translated):
        return text.english
    return text


def tr(english: str, **values: object) -> str:
    """Translate a text into the current language and fill in its {fields}; see `in_english`."""
    template = catalogue(current()).get(english, english)
    if template is not english:
        template = closed_up(template, values)
    text = template.format(**values)
    english_values = {name: in_english(value) for name, value in values.items()}
    return Translated(text, english.format(**english_values))


def tr_counted(number: int, noun: str) -> str:
    """Format a number with its English noun in the current language: `1 example`, `2,000 examples`."""
    text = catalogue(current()).get(f"{{count:,}} {noun}s")
    if text is None:
        return counted(number, noun)
    return Translated(text.format(count=number), counted(number, noun))


def listed(names: Sequence[str]) -> str:
    """Join names as `a, b and c`."""
    *first, last = names
    if not first:
        return last
    return tr("{first} and {last}", first=joined(first), last=last)


def joined(names: Sequence[str]) -> str:
    """Join names with commas of the current language."""
    return Translated(tr(", ").join(names), ", ".join(names))
