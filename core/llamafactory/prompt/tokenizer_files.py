"""The files of the tokenizer of a model or an adapter, read without transformers."""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tuneyard.core.documents.schema_errors import check_file
from tuneyard.core.errors import ContentError
from tuneyard.core.files import check_characters, read_object
from tuneyard.core.files.bounded_reading import check_size
from tuneyard.core.installation.checkout import ROOT
from tuneyard.core.language.message import _

TOKENIZER_JSON, TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"
GENERATION = "generation_config.json"
SCHEMA = ROOT / "core/schemas/tokenizer.json"
SETTINGS = (
    "config.json", GENERATION, TOKENIZER_CONFIG, "special_tokens_map.json", "added_tokens.json",
    "chat_template.json", "processor_config.json", "preprocessor_config.json",
    "video_preprocessor_config.json",
)  # fmt: skip
"""Files of a model or an adapter with one JSON object, which transformers reads."""
VOCABULARIES = (TOKENIZER_JSON, "vocab.json", "vocab.txt", "merges.txt")
ENDS_OF_VOCABULARIES = (".model", ".tiktoken")
CHAT_TEMPLATE = "chat_template.jinja"
LONGEST_TEMPLATE = 1 << 20  # bytes; those of hub models have up to 30,000
MOST_GROWTH = 1_000
"""Characters that the replacements of a tokenizer may write for one: those of hub models write 10 or less."""
SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token")


def check_tokenizer_files(folder: Path) -> None:
    """`ContentError` for a file next to a tokenizer that transformers would read for ever, or wrongly.

    transformers and LLaMA-Factory read each of these files whole, whatever its size is, and wait for a pipe.
    Their errors name no place.
    """
    for name in os.listdir(folder):  # noqa: PTH208  # of a folder with 100,000 files only names
        if name in (*SETTINGS, *VOCABULARIES) or name.endswith(ENDS_OF_VOCABULARIES):
            check_size(folder / name)
        elif name == CHAT_TEMPLATE:
            check_size(folder / name, LONGEST_TEMPLATE)
    for name in SETTINGS:
        first_object([folder], name)
    read_tokenizer([folder])


def first_object(folders: Iterable[Path], name: str) -> dict[str, Any]:
    """Read the first file with this name, {} if no folder has it."""
    for folder in folders:
        if (folder / name).is_file():
            return read_object(folder / name)
    return {}


def read_tokenizer(folders: Iterable[Path]) -> dict[str, Any]:
    """Read the first tokenizer.json, {} if no folder has it. `ContentError` names a part of another form."""
    import jsonschema_rs

    for folder in folders:
        path = folder / TOKENIZER_JSON
        if not path.is_file():
            continue
        fields: dict[str, Any] = read_object(path)
        check_characters(json.dumps(fields, ensure_ascii=False), path)
        schema = read_object(SCHEMA)
        if not jsonschema_rs.validator_for(schema).is_valid(fields):  # jsonschema takes seconds
            check_file(path, schema, fields, exact=False)
        _check_growth(path, fields)
        return fields
    return {}


def _check_growth(path: Path, fields: Mapping[str, Any]) -> None:
    """`ContentError` if normalizers or decoders multiply a text: nine times ten letters for one take 1 GB."""
    for part in ("normalizer", "decoder"):
        growth = 1
        steps = [fields.get(part)]
        while steps:
            step = steps.pop()
            if not isinstance(step, Mapping):
                continue
            for inner in ("normalizers", "decoders"):
                if isinstance(step.get(inner), list):
                    steps.extend(step[inner])
            if isinstance(step.get("content"), str):
                growth *= max(1, len(step["content"]))
        if growth > MOST_GROWTH:
            raise ContentError(
                _(
                    "{path}: {part}: its replacements may write {growth:,} characters for one, "
                    "expected at most {most:,}; take the file from the model's own page again",
                    path=path,
                    part=part,
                    growth=growth,
                    most=MOST_GROWTH,
                )
            )


def special_texts(folders: Iterable[Path]) -> dict[str, str]:
    """The texts of bos_token and other special tokens, which chat templates may use."""
    fields = first_object(folders, TOKENIZER_CONFIG)
    texts = {}
    for name in SPECIAL:
        value = fields.get(name)
        if isinstance(value, dict):
            value = value.get("content")
        if value and isinstance(value, str):
            texts[name] = value
    return texts


def listed_ends(folder: Path) -> list[int]:
    """The end tokens that a model folder lists: in generation_config.json, without one in config.json."""
    name = "config.json"
    if (folder / GENERATION).is_file():
        name = GENERATION
    listed = first_object([folder], name).get("eos_token_id")
    if not isinstance(listed, list):
        listed = [listed]
    return [end for end in listed if isinstance(end, int)]


def added_tokens(folder: Path) -> set[str]:
    """The texts of tokens that no merge makes: those of tokenizer.json, and of tokenizer_config.json."""
    texts = {token["content"] for token in read_tokenizer([folder]).get("added_tokens") or []}
    texts.update(special_texts([folder]).values())
    return texts


def token_ids(tokenizer: Mapping[str, Any]) -> dict[str, int]:
    """The ids of tokens by the content of tokenizer.json."""
    ids: dict[str, int] = {}
    vocabulary = (tokenizer.get("model") or {}).get("vocab")
    if isinstance(vocabulary, dict):  # other kinds of tokenizers list their tokens
        ids.update(vocabulary)
    for token in tokenizer.get("added_tokens") or []:
        ids[token["content"]] = token["id"]
    return ids
