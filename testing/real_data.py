"""Folders outside the repository that environment variables name: real public data, and real tokenizers."""

import os
from pathlib import Path

DATA, TOKENIZERS = "TUNEYARD_DATA", "TUNEYARD_TOKENIZERS"
QWEN = "qwen2.5"
"""The folder of Qwen2.5's tokenizer among the tokenizers."""


def folder_of(variable: str) -> Path | None:
    """The folder that a variable names. None if it is not set, `ValueError` if there is no such folder."""
    name = os.environ.get(variable, "")
    if not name:
        return None
    folder = Path(name).absolute()
    if not folder.is_dir():
        raise ValueError(f"{variable}={name}: not a folder; unset it, or see CONTRIBUTING.md")
    return folder


def find(variable: str, name: str) -> Path | None:
    """A file or folder below the folder of a variable. None if either is missing."""
    folder = folder_of(variable)
    if folder is None or not (folder / name).exists():
        return None
    return folder / name
