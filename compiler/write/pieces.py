"""Long plain texts cut into pieces of so many characters or tokens: `pieces:` of an output of plain text."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tuneyard.compiler.tokens import TOKENIZER, load_tokenizer
from tuneyard.core.files import require, sha256

SEPARATOR = b"\x1e"
"""Between the records of one row on their way to the file: JSON escapes it inside a text."""
Cut = Callable[[str], list[str]]


@dataclass(frozen=True, slots=True)
class PieceRule:
    """The longest piece of a text, in characters or in tokens of a tokenizer's folder, and how much of its
    end the next piece repeats, in the same unit. One of `characters` and `tokens` is 0."""

    characters: int = 0
    tokens: int = 0
    overlap: int = 0
    tokenizer: str = ""

    @property
    def size(self) -> int:
        """The most characters or tokens of a piece."""
        return self.characters or self.tokens

    def identity(self) -> str:
        """The hash of the tokenizer, "" without one: another tokenizer makes other pieces."""
        if not self.tokens:
            return ""
        file = Path(self.tokenizer) / TOKENIZER
        require(file, "tokenizer of `pieces`")
        return sha256(file)

    def cutter(self) -> Cut:
        """A function that cuts a text; `RequestError` if the tokenizer or its package is missing."""
        if self.characters:
            return self._by_characters
        tokenizer = load_tokenizer(Path(self.tokenizer), "`pieces`:")

        def starts(text: str) -> list[int]:
            """Where each token of a text begins."""
            return [start for start, _ in tokenizer.encode(text, add_special_tokens=False).offsets]

        return lambda text: self._by_tokens(text, starts)

    def _by_characters(self, text: str) -> list[str]:
        step = self.size - self.overlap
        last = max(len(text) - self.overlap, 1)  # what begins here would only repeat
        return [text[start : start + self.size] for start in range(0, last, step)]

    def _by_tokens(self, text: str, starts_of: Callable[[str], Sequence[int]]) -> list[str]:
        """Cut before tokens, so that no character is lost or halved.

        A piece is counted again by itself: at its ends tokens may come out otherwise than inside the text.
        """
        starts = [*starts_of(text), len(text)]
        if len(starts) - 1 <= self.size:
            return [text]
        pieces, first, begin = [], 0, 0
        while True:
            after = min(first + self.size, len(starts) - 1)
            piece = text[begin : starts[after]]
            while len(starts_of(piece)) > self.size and after > first + 1:
                after -= 1
                piece = text[begin : starts[after]]
            pieces.append(piece)
            if after == len(starts) - 1:
                return pieces
            first = max(after - self.overlap, first + 1)
            begin = starts[first]
