"""Messages: texts of ours that keep their template and their values until somebody reads them.

`_("{path}: {rows} rows", path=path, rows=3)` is English wherever it is used as a text (in JSON, in a log),
and `translated` gives it in the language of the reader. So it can be made before the language is known, and
no value of a user's file is ever translated. The Chinese is in locale/zh/LC_MESSAGES/tuneyard.po, by the
English template (GNU gettext; `make catalogue` takes new templates over).
"""

import functools
import gettext
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from string import Formatter
from typing import Self

from tuneyard.core.language.han import closed_up
from tuneyard.core.language.reader import CHINESE, current

_CATALOGUE = Path(__file__).parent / "locale" / CHINESE / "LC_MESSAGES" / "tuneyard.mo"


class Message(str):
    """An English text that remembers its template and values.

    It is a text, so that it needs no care before it is printed. What `+` or an f-string makes of messages is
    English for ever: put messages together by `_`, `joined` or `listed`.
    """

    __slots__ = ("number", "plural", "template", "values")
    template: str
    plural: str
    number: int
    values: Mapping[str, object]

    def __new__(cls, template: str, values: Mapping[str, object], plural: str = "", number: int = 1) -> Self:
        """Fill the template in. With a `plural` the `number` chooses between both."""
        values = {name: _shown(value) for name, value in values.items()}
        english = plural if plural and number != 1 else template
        message = super().__new__(cls, english.format(**values))
        message.template, message.plural, message.number = template, plural, number
        message.values = values
        return message

    def with_values(self, change: Callable[[str], str]) -> "Message":
        """The same message with each text among its values changed, also those of messages inside it.

        A text that the template quotes by `!r` stays: its quotes have no line break and no control character.
        """
        values = dict(self.values)
        for _text, name, _form, conversion in Formatter().parse(self.template):
            if name in values and conversion != "r":
                values[name] = _changed(self.values[name], change)
        return Message(self.template, values, self.plural, self.number)

    def __reduce__(self) -> tuple[object, ...]:
        """Come back whole from a worker and from a copy."""
        return type(self), (self.template, self.values, self.plural, self.number)


class PathText(str):
    """A path as text, or a location that begins with one: `rows.jsonl:12`. Messages treat it as a `Path`."""

    __slots__ = ()


def _(template: str, /, **values: object) -> Message:
    """Make a message of a template with {fields}. A literal brace is doubled, as for `str.format`."""
    return Message(template, values)


def ngettext(singular: str, plural: str, number: int, /, **values: object) -> Message:
    """Make a message whose English has two forms: `ngettext("row", "rows", 3)` is "rows"."""
    return Message(singular, values, plural, number)


def counted(number: int, singular: str, plural: str) -> Message:
    """Format a number with its noun: `1 error`, `2,000 errors`."""
    return ngettext(f"{{number:,}} {singular}", f"{{number:,}} {plural}", number, number=number)


def marked(template: str) -> str:
    """Mark a template that is filled in later, so that the catalogue has it."""
    return template


COMMA, SEMICOLON = _(", "), _("; ")


def joined(parts: Iterable[str], separator: str = COMMA) -> Message:
    """Join texts by a separator. Both may be messages: `joined(names)`, `joined(lines, "\\n")`."""
    values: dict[str, object] = {f"part{number}": part for number, part in enumerate(parts)}
    fields = [f"{{{name}}}" for name in values]
    return Message("{separator}".join(fields), values | {"separator": separator})


def listed(names: Sequence[str]) -> Message:
    """Join names as `a, b and c`."""
    *first, last = names
    if not first:
        return joined(names, "")
    return _("{first} and {last}", first=joined(first), last=last)


def translated(text: str) -> str:
    """A message in the language of the reader. Any other text, and what has no Chinese, stays as it is."""
    if not isinstance(text, Message) or current() != CHINESE:
        return str(text)
    template = text.template
    if text.plural:
        template = _chinese().ngettext(text.template, text.plural, text.number)
    elif text.template:  # the catalogue's own header has no template
        template = _chinese().gettext(text.template)
    values: dict[str, object] = {}
    for name, value in text.values.items():
        values[name] = translated(value) if isinstance(value, str) else value
    return closed_up(template, values).format(**values)


def translated_template(template: str) -> str:
    """A template with its {fields} in the language of the reader, for a script that fills them in."""
    if current() != CHINESE:
        return template
    return _chinese().gettext(template)


def tr(template: str, /, **values: object) -> str:
    """Text of a page, a plot or a table, in the language of its reader at once."""
    return translated(_(template, **values))


def message_of(error: BaseException) -> str:
    """What an error says, as the message it was raised with, so that it can be translated."""
    if len(error.args) == 1 and isinstance(error.args[0], Message):
        return error.args[0]
    return str(error)


def relative(path: object) -> str:
    """A path, or a place that begins with one, below the current folder from there on; any other as it is."""
    try:
        folder = f"{Path.cwd()}/"
    except FileNotFoundError:  # deleted, maybe while the command ran
        return str(path)
    if folder == "//":
        return str(path)
    return str(path).removeprefix(folder)


def with_texts(text: str, change: Callable[[str], str]) -> str:
    """A text changed, or a message with its values changed: its template is ours and stays."""
    if isinstance(text, Message):
        return text.with_values(change)
    return change(text)


def _changed(value: object, change: Callable[[str], str]) -> object:
    return with_texts(value, change) if isinstance(value, str) else value


def typed(words: Iterable[object]) -> str:
    """Words as a command that is typed here: `tuneyard recipe check a.yaml dataset_dir=new`, with quotes.

    Paths below the current folder are written from there on, also as the value of a setting.
    """
    return shlex.join(map(_typed_word, words))


def _typed_word(word: object) -> str:
    name, equals, value = str(word).partition("=")
    if equals and not name.startswith("/"):
        return f"{name}={relative(value)}"
    return relative(word)


def _shown(value: object) -> object:
    """A value as messages have it: paths from the current folder on, errors as what they say."""
    if isinstance(value, (Path, PathText)):
        return relative(value)
    if isinstance(value, BaseException):
        return message_of(value)
    return value


@functools.cache
def _chinese() -> gettext.GNUTranslations:
    with _CATALOGUE.open("rb") as file:
        return gettext.GNUTranslations(file)
