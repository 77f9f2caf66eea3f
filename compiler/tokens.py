"""The tokenizer of a model folder, by the `tokenizers` package alone: no torch, no transformers."""

from pathlib import Path
from typing import Any

from tuneyard.core.errors import ContentError, RequestError, need
from tuneyard.core.files import read_object

TOKENIZER = "tokenizer.json"


def load_tokenizer(folder: Path, option: str) -> Any:
    """A folder's fast tokenizer, which cuts and pads nothing; `option` opens messages."""
    path = folder / TOKENIZER
    if not path.is_file():
        raise RequestError(f"{option} {folder}: no {TOKENIZER} in it; name a folder with a fast tokenizer")
    need("tokenizers")
    from tokenizers import Tokenizer

    if not isinstance(read_object(path).get("model"), dict):
        raise ContentError(f"{path}: no `model` in it, so it is no tokenizer; get the file again")
    tokenizer: Any = Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
