"""Telegram's export: the text of a message is a list if a part of it is bold, or a link."""

from tuneyard.compiler.rows import Fields
from tuneyard.compiler.spec.export_forms import ExportForm


def has_form(row: Fields) -> bool:
    """True for a message or a notice of Telegram, with the parts of its text and its date."""
    return (
        row.get("type") in ("message", "service")
        and isinstance(row.get("text_entities"), list)
        and isinstance(row.get("text"), str | list)
        and "date" in row
    )


def with_whole_text(row: Fields) -> Fields:
    """Join the parts of a text. A text without parts stays."""
    parts = row.get("text")
    if not isinstance(parts, list):
        return row
    texts = [str(part.get("text", "")) if isinstance(part, dict) else str(part) for part in parts]
    return {**row, "text": "".join(texts)}


TELEGRAM = ExportForm("telegram", has_form, with_whole_text)
