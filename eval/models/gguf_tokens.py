"""The tokens in a GGUF that llama.cpp never divides, and those at which it ends an answer."""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tuneyard.adapters.export.architecture import CONTROL, END_NAMES, ENDS_BY_NAME, USER_DEFINED
from tuneyard.core.errors import ContentError
from tuneyard.core.files.bounded_reading import open_regular
from tuneyard.core.language.message import _, marked

MOST_ITEMS = 1 << 20  # fields, tensors, or items of a list; the largest vocabularies have 260,000 tokens
STRING, LIST = 8, 9
NUMBERS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""The bytes of a number by its type in the file (ggml-org/ggml, docs/gguf.md)."""


@dataclass(frozen=True, slots=True)
class GgufTokens:
    """`whole`: by id, the text of each token that no text is divided in, and True for a control token."""

    whole: Mapping[int, tuple[str, bool]]
    ends: Sequence[int]


class _Fields:
    """Walks over the fields at the beginning of a GGUF. `ContentError` for one that does not fit."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        """Begin after the first bytes, `GGUF`."""
        self.path = path
        self.size = path.stat().st_size
        self.file = file
        file.seek(4)

    def check(self) -> None:
        """Walk over all fields."""
        self._number("I")  # the version, which the library checks
        self._count("Q", marked("{number:,} tensors"))
        for _field in range(self._count("Q", marked("{number:,} fields"))):
            self._skip(self._number("Q"))
            self._value(self._number("I"))

    def _value(self, kind: int) -> None:
        if kind == STRING:
            self._skip(self._number("Q"))
        elif kind == LIST:
            kind = self._number("I")
            count = self._count("Q", marked("{number:,} items in a list"))
            if kind == LIST:
                raise self._wrong(_("a list of lists"), _("a list of numbers or texts"))
            if kind == STRING:
                for _text in range(count):
                    self._skip(self._number("Q"))
            else:
                self._skip(count * NUMBERS.get(kind, 0))
        else:
            self._skip(NUMBERS.get(kind, 0))

    def _number(self, form: str) -> int:
        width = struct.calcsize(f"<{form}")
        data = self.file.read(width)
        if len(data) < width:
            raise self._wrong(_("the end of the file within its fields"), _("all of them"))
        (number,) = struct.unpack(f"<{form}", data)
        return int(number)

    def _count(self, form: str, template: str) -> int:
        """Read a number of items. `template` says in an error what they are."""
        count = self._number(form)
        if count > MOST_ITEMS:
            raise self._wrong(_(template, number=count), _("at most {most:,}", most=MOST_ITEMS))
        return count

    def _skip(self, length: int) -> None:
        end = self.file.tell() + length
        if end > self.size:
            raise self._wrong(
                _("a value of {length:,} bytes in a file of {size:,}", length=length, size=self.size),
                _("one that fits"),
            )
        self.file.seek(end)

    def _wrong(self, there: str, expected: str) -> ContentError:
        return ContentError(
            _(
                "{path}: byte {position:,}: found {there}, expected {expected}; copy the file again",
                path=self.path,
                position=self.file.tell(),
                there=there,
                expected=expected,
            )
        )


def check_fields(path: Path) -> None:
    """`ContentError` for counts and lengths beyond the file, which the library gguf would walk for ever."""
    with open_regular(path) as file:
        _Fields(path, file).check()


def read_tokens(path: Path) -> GgufTokens:
    """Read the tokens of a GGUF. An answer ends at the file's end tokens, and at those with known names."""
    import gguf

    fields = gguf.GGUFReader(str(path)).fields

    def content(name: str) -> list[object]:
        field = fields.get(f"tokenizer.ggml.{name}")
        value = field.contents() if field else []
        return value if isinstance(value, list) else [value]

    whole: dict[int, tuple[str, bool]] = {}
    ends: list[int] = []
    for name in END_NAMES:
        ends += [end for end in content(f"{name}_token_id") if isinstance(end, int)]
    for number, (text, kind) in enumerate(zip(content("tokens"), content("token_type"), strict=False)):
        if kind in (CONTROL, USER_DEFINED):
            whole[number] = str(text), kind == CONTROL
            if kind == CONTROL and text in ENDS_BY_NAME:
                ends.append(number)
    return GgufTokens(whole, list(dict.fromkeys(ends)))
