"""Checks on each row: empty answers, template tokens, control characters, lengths; and keys to compare by."""

import re
from array import array
from collections.abc import Hashable, Iterable, Iterator, Sequence
from hashlib import blake2b
from itertools import chain
from operator import add

from xxhash import xxh3_64_digest

from tuneyard.compiler.check.cleaning import HTML
from tuneyard.compiler.check.text_columns import TextColumns, Texts
from tuneyard.compiler.kinds import MARK, kind_of
from tuneyard.compiler.lint.fingerprints import Fingerprints
from tuneyard.compiler.problems import Problems
from tuneyard.compiler.rows import Batch
from tuneyard.compiler.spec.model import Spec
from tuneyard.core.errors import Problem, show_value

LINT_CODES = ("W204", "W205", "W206", "W207", "W214")
"""The warnings that `Lint` gives."""
LONG = 1_000_000
_WORD = 1 << 63
TOKENS = re.compile(
    r"<\|[A-Za-z_0-9 ]{1,40}\|>|</?s>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>|<｜[^｜]{1,40}｜>"
)
# An answer that is a program, or a question for one: its tags are meant, and no scraps of a web page.
MARKUP = re.compile(
    r"```|<!doctype|<html|<\?php|html|\bcss\b|\breact\b|jsx|\bvue\b|angular|javascript|\bphp\b|xml|markup|\btags?\b"
    r"|\bweb ?(?:page|site|app|form)|网页|标签",
    re.IGNORECASE,
)
CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")

# One pass over the bytes of a batch: ASCII letters become small, blanks go, and each control
# character becomes NUL, which is quickly looked for. The separator stays what it is.
_SEPARATOR = "\x1e"
_CONTROLS = bytes([*range(9), 11, 12, *range(14, 30), 31, 127])
_PLAIN = bytes.maketrans(bytes(range(65, 91)) + _CONTROLS, bytes(range(97, 123)) + bytes(len(_CONTROLS)))
_BLANKS = b" \t\r\n"


class Lint:
    """Checks every kept row of a spec once, batch by batch, and adds it to a `Fingerprints`."""

    def __init__(self, spec: Spec, problems: Problems) -> None:
        self.spec = spec
        self.problems = problems
        self.texts = TextColumns(spec)
        self.marks = [column.name for column in spec.columns if kind_of(column.kind).compared == MARK]

    def see(self, seen: Fingerprints, batch: Batch, numbered: bool) -> None:
        """Check a batch. `numbered`: its ids come from the file, so that they should differ."""
        seen.begin(batch.prefix, batch.lines)
        texts = self.texts.of(batch)
        plain = dict(zip(texts, self._plain(list(texts.values()), batch), strict=True))
        keys = {name: keys_of_texts(column) for name, column in plain.items()}
        answers = [keys[name] for name in self.texts.answered]
        if self.texts.label_is_learned:
            answers.append(keys_of_values(batch.columns["label"]))
        answers += [keys_of_values(batch.columns[name]) for name in self.marks]
        if self.spec.group:
            groups = keys.get(self.spec.group)
            if groups is None:
                written = map(repr, batch.columns[self.spec.group])
                groups = keys_of_texts([text.encode() for text in written])
            seen.groups.extend(groups)
        if "idx" in batch.columns and not self.spec.share:
            if numbered:
                seen.ids.extend(keys_of_ids(batch.columns["idx"]))
            else:
                seen.add_rows_without_id(len(batch))
        if self.spec.labels and not self.spec.share:
            seen.labels.note(batch.columns["label"])
        seen.prompts.extend(_together([keys[name] for name in self.texts.asked], len(batch)))
        seen.answers.extend(_together(answers, len(batch)))
        if self.spec.near:
            seen.texts += map("\n".join, zip(*(texts[name] for name in self.texts.asked), strict=True))
        self._for_split(seen, batch, [plain[name] for name in self.texts.asked])
        self._lengths(seen, list(texts.values()), batch)
        learned = [texts[name] for name in self.texts.answered]
        joined = "\n".join(chain.from_iterable(learned))
        if "<" in joined and HTML.search(joined):
            for number, message in _hits(HTML, learned, "HTML in an answer"):
                if not any(MARKUP.search(column[number]) for column in texts.values()):
                    self._warn("W214", batch, [(number, message)])
        for name in self.texts.may_be_blank:
            if b"" in plain[name]:
                empty = [number for number, text in enumerate(plain[name]) if not text]
                message = "an empty answer would be trained on"
                self._warn("W204", batch, ((number, message) for number in empty), name)
        if seen.counted_only:
            seen.fold()

    def _plain(self, columns: list[Texts], batch: Batch) -> list[list[bytes]]:
        """Texts without blanks, in lower case (ASCII). Warns of control characters and template tokens."""
        joined = _SEPARATOR.join(chain.from_iterable(columns))
        plain = joined.encode().translate(_PLAIN, _BLANKS)
        parts = plain.split(b"\x1e")
        size = len(batch)
        has_separator = len(parts) != size * len(columns)
        if has_separator:
            parts = list(map(plain_text, chain.from_iterable(columns)))
        if has_separator or b"\0" in plain:
            self._warn("W206", batch, _hits(CONTROL, columns, "a control character"))
        if ("<" in joined or ("]" in joined and "INST]" in joined)) and TOKENS.search(joined):
            self._warn("W205", batch, _hits(TOKENS, columns, "a token of a chat template inside the text"))
        return [parts[start : start + size] for start in range(0, len(parts), size)]

    def _for_split(self, seen: Fingerprints, batch: Batch, prompts: list[list[bytes]]) -> None:
        """Note the keys that a split is drawn by: class, group, or a hash that is the same in every run."""
        split = self.spec.split
        if split is None:
            return
        if split.stratify:
            seen.classes.note(batch.columns[split.stratify])
        if split.group:
            seen.units.extend(map(unit_key, batch.columns[split.group]))
        if split.by_hash:
            values = batch.columns[split.group] if split.group else zip(*prompts, strict=True)
            seen.stable.fromlist([int.from_bytes(_digest(value)) for value in values])

    def _lengths(self, seen: Fingerprints, columns: list[Texts], batch: Batch) -> None:
        lengths = list(map(len, columns[0]))
        for column in columns[1:]:
            lengths = list(map(add, lengths, map(len, column)))
        seen.lengths.fromlist(lengths)
        if max(lengths) >= LONG:
            long = [number for number, length in enumerate(lengths) if length >= LONG]
            message = "a very long row: a million characters or more"
            self._warn("W207", batch, ((number, message) for number in long))

    def _warn(self, code: str, batch: Batch, warnings: Iterable[tuple[int, str]], field: str = "") -> None:
        for number, message in warnings:
            self.problems.warn(Problem(code, batch.place(number), message, field))


def plain_text(text: str) -> bytes:
    """Normalise a text for comparisons: without blanks, its ASCII letters in lower case."""
    return text.encode(errors="surrogatepass").translate(_PLAIN, _BLANKS)


def codes_of_texts(texts: Sequence[str], answers: Sequence[str]) -> list[str]:
    """Codes of a row's texts by themselves: W205, W206, W214. `texts` has the answers too."""
    codes = []
    if any(map(TOKENS.search, texts)):
        codes.append("W205")
    if any(map(CONTROL.search, texts)):
        codes.append("W206")
    if any(map(HTML.search, answers)) and not any(map(MARKUP.search, texts)):
        codes.append("W214")
    return codes


def _hits(pattern: re.Pattern[str], columns: list[Texts], title: str) -> Iterator[tuple[int, str]]:
    """Yield the numbers of the rows with a match of the pattern, each with a message on the first match."""
    for number, texts in enumerate(zip(*columns, strict=True)):
        hit = next(filter(None, map(pattern.search, texts)), None)
        if hit:
            yield number, f"{title}: {show_value(hit[0])}"


def keys_of_texts(texts: Sequence[bytes]) -> "array[int]":
    """XXH3 of each text: 8 bytes, the same in every process."""
    return array("q", b"".join(map(xxh3_64_digest, texts)))


def keys_of_values(values: Sequence[Hashable]) -> "array[int]":
    """A key for each value, of which few are different."""
    digest_by_value = {value: _unit_digest(value) for value in set(values)}
    return array("q", b"".join(map(digest_by_value.__getitem__, values)))


def keys_of_ids(values: Sequence[object]) -> "array[int]":
    """8 bytes for each value. Whole numbers are their own keys, whatever values are next to them."""
    try:
        return array("q", values)  # type: ignore[arg-type]  # raises for anything but numbers of 8 bytes
    except (TypeError, OverflowError):
        keys = array("q")
        for value in values:
            number = _whole(value)
            if isinstance(number, int) and -_WORD <= number < _WORD:
                keys.append(number)
            else:
                keys.append(unit_key(value))
        return keys


def unit_key(value: object) -> int:
    """Hash a value that groups rows: 8 bytes, the same in every process, equal for equal numbers."""
    return int.from_bytes(_unit_digest(value), signed=True)


def _unit_digest(value: object) -> bytes:
    return xxh3_64_digest(repr(_whole(value)).encode())


def _whole(value: object) -> object:
    """A number without fraction as `int`, any other value as it is."""
    if isinstance(value, bool) or (isinstance(value, float) and value.is_integer()):
        return int(value)
    return value


def _digest(value: object) -> bytes:
    """Hash a value to 8 bytes by which splits are drawn: another hash would draw other ones."""
    return blake2b(repr(value).encode(), digest_size=8).digest()


def _together(keys: "Sequence[array[int]]", rows: int) -> "array[int]":
    """One key for each row from the keys of its columns: key 1 rotated by a bit XOR key 2, and so on.

    Swapped columns get another key. All rows are computed at once, in integers with 64 bits for each row.
    """
    if not keys:
        return array("q", [0]) * rows
    if len(keys) == 1:
        return keys[0]
    first_bits = int.from_bytes((bytes(7) + b"\x80") * rows, "little")  # of each row's 64
    joined = 0
    for column in keys:
        first = joined & first_bits
        rotated = (joined ^ first) << 1 | first >> 63
        joined = rotated ^ int.from_bytes(column.tobytes(), "little")
    return array("q", joined.to_bytes(8 * rows, "little"))
