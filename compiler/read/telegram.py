"""Telegram's export: the text of a message is a list if a part of it is bold, or a link."""

from tuneyard.compiler.rows import Fields

PARTS = "text_entities"
"""The key of the parts of a message's text."""


def with_whole_text(row: Fields) -> Fields:
    """Join the parts of a text. A text without parts stays."""
    parts = row.get("text")
    if not isinstance(parts, list):
        return row
    texts = [str(part.get("text", "")) if isinstance(part, dict) else str(part) for part in parts]
    return {**row, "text": "".join(texts)}
