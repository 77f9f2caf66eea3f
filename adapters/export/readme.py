"""Which README.md goes to the hub: the user's, or the card that Tuneyard makes.

A README.md that a program wrote has its mark: transformers' comment, PEFT's heading, or the hash in the card
of this command. The card of `merge` and `fuse` follows from merge.json. Every other text is the user's.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from tuneyard.adapters.export.source import parse_front_matter
from tuneyard.adapters.model.provenance import CARD, card_text
from tuneyard.core.errors import ContentError, RequestError
from tuneyard.core.files import require, text_sha256
from tuneyard.core.files.bounded_reading import read_regular
from tuneyard.core.language.message import _
from tuneyard.core.training.training_run import read_provenance

GENERATED = (
    "<!-- This model card has been generated automatically according to the information the Trainer had",
    "# Model Card for Model ID",  # huggingface_hub's template, which PEFT's `save_pretrained` fills in
)
LARGEST = 1 << 20  # bytes of a card; the hub's own limit for its front matter is far smaller
_SIGNATURE = re.compile(r"\n<!-- tuneyard adapter export, card ([0-9a-f]{64}) -->\n\Z")


def signed(card: str) -> str:
    """A made card with its hash in a comment, so that `is_unedited` recognises it on the hub."""
    return f"{card}\n<!-- tuneyard adapter export, card {text_sha256(card)} -->\n"


def is_unedited(text: str) -> bool:
    """True for a text of `signed` that nobody has changed since."""
    signature = _SIGNATURE.search(text)
    return signature is not None and signature[1] == text_sha256(text[: signature.start()])


def has_body(text: str) -> bool:
    """True if anything follows the front matter, which programs and the hub's own form write alone."""
    if not text.startswith("---\n"):
        return bool(text.strip())
    return bool(text.partition("\n---")[2].strip())


def users_card(folder: Path, chosen: Path | None) -> Path | None:
    """The user's card: `--card FILE`, otherwise the folder's README.md if no program wrote it.

    None if Tuneyard is to make the card.
    """
    if chosen is not None:
        if require(chosen, "card").is_file():
            return chosen
        raise RequestError(
            _(
                "{chosen}: a folder, expected the file of a card, as in --card {chosen}/{card}",
                chosen=chosen,
                card=CARD,
            )
        )
    path = folder / CARD
    if not path.is_file():
        return None
    text = read_card(path).replace("\r\n", "\n")
    if not has_body(text) or is_unedited(text) or any(mark in text for mark in GENERATED):
        return None
    record = read_provenance(folder)
    if record and text == card_text(record):
        return None
    return path


def read_card(path: Path) -> str:
    """Text of a card as it is; `ContentError` if it is not UTF-8, too large, or has broken front matter."""
    size = path.stat().st_size
    if size > LARGEST:
        raise ContentError(
            _(
                "{path}: {size:,} bytes, expected a card of at most {limit:,}: name another file",
                path=path,
                size=size,
                limit=LARGEST,
            )
        )
    try:
        text = read_regular(path).decode()
    except UnicodeDecodeError as error:
        raise ContentError(
            _("{path}: not UTF-8 at byte {start}: save it as UTF-8", path=path, start=error.start)
        ) from error
    parse_front_matter(text.replace("\r\n", "\n"), path)
    return text


def missing_fields(path: Path, fields: Sequence[str]) -> list[str]:
    """Those of these fields that the front matter of a card does not have."""
    front = parse_front_matter(read_card(path).replace("\r\n", "\n"), path)
    return [field for field in fields if not front.get(field)]


def refuse_facts(place: str, options: Sequence[str]) -> None:
    """`RequestError` if options that are for a made card are given with the user's."""
    if options:
        raise RequestError(
            _(
                "{path}: this card is uploaded unchanged, and {options} would have no effect: write "
                "the facts into it and leave {options} out, or take that card away, and one is made",
                path=place,
                options=", ".join(options),
            )
        )
