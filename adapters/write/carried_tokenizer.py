"""Carry tokenizer, chat template and end tokens of trainings into a merged adapter or a fused model.

The result has what `eval` uses for the sum: the first adapter's tokenizer if all have the same tokens, the
chat template on which they agree, and the end tokens of all. Every difference is noted.
"""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tuneyard.core.errors import ContentError, show_value
from tuneyard.core.files import read_object, write_json, write_text
from tuneyard.core.files.bounded_reading import read_regular
from tuneyard.core.language.message import _, joined, message_of
from tuneyard.core.llamafactory.prompt import find_chat_template
from tuneyard.core.llamafactory.prompt.tokenizer_files import (
    CHAT_TEMPLATE,
    GENERATION,
    TOKENIZER_CONFIG,
    TOKENIZER_JSON,
    first_object,
    listed_ends,
    read_tokenizer,
    special_texts,
    token_ids,
)
from tuneyard.core.llamafactory.prompt.trained_files import VOCABULARIES, has_tokenizer, read_trained

# LLaMA-Factory writes them next to an adapter: the prompt of its training.
TOKENIZER = (
    "added_tokens.json", "merges.txt", "special_tokens_map.json", TOKENIZER_JSON, "tokenizer.model",
    TOKENIZER_CONFIG, "vocab.json",
)  # fmt: skip
PROMPT_FILES = (*TOKENIZER, CHAT_TEMPLATE, GENERATION)
"""The files of tokenizer, chat template and end tokens."""
TEMPLATE = "chat_template"  # a field of tokenizer_config.json


def carry_tokenizer(adapters: Sequence[Path], folder: Path, otherwise: str) -> list[str]:
    """Copy the files of tokenizer and chat template into `folder`, which may have those of the base.

    The result has notes on what adapters do not agree on, which begin with `otherwise`.
    """
    notes: list[str] = []
    templates = _templates(adapters)
    if len(templates) > 1:
        notes.append(
            _("{path}, since the adapters differ in them: {names}", path=otherwise, names=CHAT_TEMPLATE)
        )
    if len(templates) != 1:
        templates = _templates([folder])  # the base's stays
    with_files = [each for each in adapters if any((each / name).is_file() for name in TOKENIZER)]
    if with_files:
        first, *others = with_files
        differences = filter(None, (_differing_tokens(first, other, otherwise) for other in others))
        difference = next(differences, "")
        if difference:
            notes.append(difference)
        else:
            _copy(first, folder)
            for other in others:
                notes += _other_differences(first, other)
    if templates and _templates([folder]) != templates:
        (text,) = templates
        write_text(folder / CHAT_TEMPLATE, text)
    return notes


def write_ends(adapters: Sequence[Path], folder: Path, base: Path | None = None) -> None:
    """Add the end tokens of all trainings to generation_config.json, if the result does not have them.

    Those of a fused model are compared with the ones that its base lists, those of a merged adapter with the
    ones of the carried tokenizer.
    """
    listed = listed_ends(base) if base else list(read_trained(folder).ends)
    ends = list(listed)
    for adapter in adapters:
        ends += read_trained(adapter, base).ends
    distinct_ends = list(dict.fromkeys(ends))
    if distinct_ends != listed:
        fields = first_object([folder], GENERATION)
        write_json(folder / GENERATION, {**fields, "eos_token_id": distinct_ends})


def carry_ends(adapters: Sequence[Path], folder: Path) -> list[str]:
    """`write_ends` for a new adapter. Files that `eval` refuses by name get a note: the weights are right."""
    try:
        write_ends(adapters, folder)
    except ContentError as error:
        return [message_of(error)]
    return []


def _templates(folders: Sequence[Path]) -> set[str]:
    """The chat templates in folders. `eval` refuses several in one without a default by name."""
    texts = set()
    for folder in folders:
        with contextlib.suppress(ContentError):
            saved = find_chat_template(folder)
            if saved is not None:
                texts.add(saved.text)
    return texts


def _differing_tokens(first: Path, other: Path, otherwise: str) -> str:
    """A note on a token for which two tokenizers have different ids; "" if a text has the same by both."""
    if not (has_tokenizer(first) and has_tokenizer(other)):
        return ""
    if (first / TOKENIZER_JSON).is_file() and (other / TOKENIZER_JSON).is_file():
        ids, other_ids = token_ids(read_tokenizer([first])), token_ids(read_tokenizer([other]))
        for token in sorted({*ids, *other_ids}):
            if ids.get(token) != other_ids.get(token):
                return _(
                    "{path}: the tokenizer, since {token} has the id {one} in {first} and {other} in "
                    "{second}",
                    path=otherwise,
                    token=show_value(token),
                    one=ids.get(token),
                    first=first,
                    other=other_ids.get(token),
                    second=other,
                )
        return ""
    for name in VOCABULARIES:
        if _content(first / name) != _content(other / name):
            return _("{path}, since the adapters differ in them: {names}", path=otherwise, names=name)
    return ""


def _copy(adapter: Path, folder: Path) -> None:
    """Copy an adapter's tokenizer without its chat template.

    Settings without a vocabulary change the special tokens of the base's tokenizer in `folder`.
    """
    changes_base = has_tokenizer(folder) and not has_tokenizer(adapter)
    for name in TOKENIZER:
        if not (adapter / name).is_file():
            continue
        if name == TOKENIZER_CONFIG and changes_base:
            write_json(folder / name, {**first_object([folder], name), **special_texts([adapter])})
        elif name == TOKENIZER_CONFIG and TEMPLATE in read_object(adapter / name):
            fields = read_object(adapter / name)
            del fields[TEMPLATE]
            write_json(folder / name, fields)
        else:
            (folder / name).write_bytes(read_regular(adapter / name))


def _other_differences(first: Path, other: Path) -> list[str]:
    """A note on the files and settings in which a tokenizer of the same tokens differs from the `first`."""
    names = []
    for name in TOKENIZER:
        content, other_content = _content(first / name), _content(other / name)
        if content is None or other_content is None or content == other_content:
            continue
        if name == TOKENIZER_CONFIG:
            fields = _differing_fields(read_object(first / name), read_object(other / name))
            if fields:
                names.append(f"{name} ({', '.join(fields)})")
        else:
            names.append(name)
    if not names:
        return []
    return [
        _(
            "the tokenizer is that of {first}; {second} differs in {names}",
            first=first,
            second=other,
            names=joined(names),
        )
    ]


def _differing_fields(fields: Mapping[str, Any], others: Mapping[str, Any]) -> list[str]:
    """The settings that differ, apart from the chat template, which is compared by itself."""
    names = sorted({*fields, *others} - {TEMPLATE})
    return [name for name in names if fields.get(name) != others.get(name)]


def _content(file: Path) -> bytes | None:
    return read_regular(file) if file.is_file() else None
