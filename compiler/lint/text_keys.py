"""Texts in a plain form, and keys of them: what a compile, stats, diff and view call equal."""

from array import array
from collections.abc import Collection, Iterable, Sequence
from hashlib import blake2b

from xxhash import xxh3_64_digest, xxh32_digest

from tuneyard.compiler.lint.fingerprints import NO_ID

_WORD = 1 << 63
# Letters of ASCII become small, and each control character becomes NUL. Blanks are left out.
_CONTROLS = bytes([*range(9), 11, 12, *range(14, 32), 127])
_PLAIN = bytes.maketrans(bytes(range(65, 91)) + _CONTROLS, bytes(range(97, 123)) + bytes(len(_CONTROLS)))
_BLANKS = b" \t\r\n"
SEPARATOR = b"\x1e"  # a control character, so that no plain text has it
_PLAIN_SEPARATED = _PLAIN[:30] + SEPARATOR + _PLAIN[31:]


def plain_text(text: str) -> bytes:
    """Normalise a text for comparisons: without blanks, its ASCII letters in lower case."""
    return text.encode(errors="surrogatepass").translate(_PLAIN, _BLANKS)


def plain_texts(texts: Sequence[str], signs: Collection[bytes]) -> tuple[list[bytes], set[bytes]]:
    """`plain_text` of each text, and the `signs` that one of them may have.

    It is one call for all, unless a text has the separator.
    """
    joined = "\x1e".join(texts).encode(errors="surrogatepass").translate(_PLAIN_SEPARATED, _BLANKS)
    plain = joined.split(SEPARATOR)
    if len(plain) != len(texts):
        return list(map(plain_text, texts)), set(signs)
    # one byte is found sooner than several
    return plain, {sign for sign in signs if sign[-1:] in joined and sign in joined}


def joined_columns(columns: Sequence[list[bytes]], rows: int) -> list[bytes]:
    """The plain texts of each row's columns as one."""
    if not columns:
        return [b""] * rows
    if len(columns) == 1:
        return columns[0]
    return list(map(SEPARATOR.join, zip(*columns, strict=True)))


def keys_of_texts(texts: Iterable[bytes]) -> "array[int]":
    """XXH3 of each text: 8 bytes, the same in every process."""
    return array("q", b"".join(map(xxh3_64_digest, texts)))


def short_keys_of_texts(texts: Iterable[bytes]) -> "array[int]":
    """XXH32 of each text: 4 bytes."""
    return array("I", b"".join(map(xxh32_digest, texts)))


def keys_of_ids(values: Sequence[object]) -> "array[int]":
    """8 bytes for each value, `NO_ID` for None. Whole numbers are their own keys, in any type."""
    try:
        return array("q", values)  # type: ignore[arg-type]  # raises for anything but numbers of 8 bytes
    except (TypeError, OverflowError):
        return array("q", map(_id_key, values))


def _id_key(value: object) -> int:
    number = NO_ID if value is None else _whole(value)
    if isinstance(number, int) and -_WORD <= number < _WORD:
        return number
    return cluster_key(value)


def cluster_key(value: object) -> int:
    """Hash a value that groups rows: 8 bytes, the same in every process, equal for equal numbers."""
    return int.from_bytes(xxh3_64_digest(written(value)), signed=True)


def written(value: object) -> bytes:
    """A value as text, the same for equal numbers."""
    return repr(_whole(value)).encode()


def _whole(value: object) -> object:
    """A number without fraction becomes an `int`; any other value stays."""
    if isinstance(value, bool) or (isinstance(value, float) and value.is_integer()):
        return int(value)
    return value


def digest(value: object) -> bytes:
    """Hash a value to 8 bytes by which splits are drawn: another hash would draw other ones."""
    return blake2b(repr(value).encode(), digest_size=8).digest()
