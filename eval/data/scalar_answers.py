"""Answers of --data files that are numbers or truth values, as texts.

LLaMA-Factory drops such rows of a registered dataset. A file that nobody trains on has no reason to quote 5.
"""

import json
from typing import Any

from tuneyard.core.records import ANSWERS, PAIR, RecordReader, format_of_record

Record = dict[str, Any]
EXACT = 1 << 53  # up to here a float holds every whole number


def with_text_answers(record: Record) -> Record:
    """A record without a registry entry, its answers as texts. The record itself stays unchanged.

    >>> with_text_answers({"instruction": "2 + 3?", "output": 5})
    {'instruction': '2 + 3?', 'output': '5'}
    """
    changed = dict(record)
    if all(part in record for part in PAIR):
        for part in PAIR:
            changed[part] = scalar_text(record[part])
    record_format = format_of_record(changed)
    answer_column = record_format.columns.get("response", "")
    if answer_column in changed:
        changed[answer_column] = scalar_text(changed[answer_column])
    messages_column = record_format.columns.get("messages", "")
    messages = changed.get(messages_column)
    if isinstance(messages, list):
        roles = RecordReader(record_format).roles
        role_key, content_key = record_format.tags["role_tag"], record_format.tags["content_tag"]
        changed[messages_column] = [
            _with_text_content(message, roles, role_key, content_key) for message in messages
        ]
    return changed


def _with_text_content(message: object, roles: dict[str, str], role_key: str, content_key: str) -> object:
    """A message with its content as text if it is the model's."""
    if not isinstance(message, dict) or roles.get(str(message.get(role_key))) not in ANSWERS:
        return message
    if content_key not in message:
        return message
    return {**message, content_key: scalar_text(message[content_key])}


def scalar_text(value: object) -> object:
    """A number or a truth value as JSON text; a whole number without `.0`. Other values stay.

    Tables write whole numbers as floats once a row of their column is empty.
    """
    if isinstance(value, float) and value.is_integer() and abs(value) < EXACT:
        return str(int(value))
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    return value
