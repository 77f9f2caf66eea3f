"""Where a spec's rows come from, and how their text is written."""

import codecs
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


def no_row(_: object) -> bool:
    """Whether an object is one row: never, where nothing says what a row needs."""
    return False


@dataclass(frozen=True, slots=True)
class Source:
    """Where rows come from when no --source says otherwise, how their text is written, what a row needs."""

    files: dict[str, tuple[str, ...]]
    hub: dict[str, object]
    splits: dict[str, tuple[str, ...]]
    encoding: str = "utf-8"
    delimiter: str | None = None
    quoted: bool | None = None
    header: tuple[str, ...] = ()
    media_dir: str = ""
    rows: dict[str, tuple[str, ...]] = field(default_factory=dict)
    is_row: Callable[[object], bool] = no_row

    def steps(self, split: str) -> tuple[str, ...]:
        """Return the keys that lead to the rows of a split in a JSON document, () for none."""
        return self.rows.get(split, self.rows.get("", ()))


def source_of(raw: Any, part: str) -> Source:
    """Return what a valid `source` says; files that name no split are those of the part."""
    settings = ("encoding", "delimiter", "quoted", "media_dir")
    return Source(
        files=_by_part(raw.get("files", {}), part),
        hub=raw.get("hub", {}),
        splits=_by_part(raw.get("splits", {}), part),
        header=tuple(raw.get("header", ())),
        rows=_by_part(raw.get("rows", {}), ""),
        **{key: raw[key] for key in settings if key in raw},
    )


def _by_part(raw: Any, otherwise: str) -> dict[str, tuple[str, ...]]:
    """Return texts by part; those that name no part are under `otherwise`."""
    by_part = raw if isinstance(raw, dict) else {otherwise: raw}
    return {part: (each,) if isinstance(each, str) else tuple(each) for part, each in by_part.items()}


def reads_piece_by_piece(encoding: str) -> bool:
    """Whether an encoding is one of text that can be read in pieces (not hex, rot13, punycode, undefined)."""
    text = 'a\t"b",{}[]:\r\n' * 9
    try:
        data, decoder = text.encode(encoding), codecs.getincrementaldecoder(encoding)()
        pieces = [decoder.decode(data[at : at + 1]) for at in range(len(data))]
        return "".join(pieces) + decoder.decode(b"", True) == text
    except (LookupError, ValueError):
        return False
