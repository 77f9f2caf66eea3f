"""The tokens in a GGUF that llama.cpp never divides, and those at which it ends an answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tuneyard.adapters.export.architecture import CONTROL, END_NAMES, ENDS_BY_NAME, USER_DEFINED


@dataclass(frozen=True, slots=True)
class GgufTokens:
    """`whole`: by id, the text of each token that no text is divided in, and True for a control token."""

    whole: Mapping[int, tuple[str, bool]]
    ends: Sequence[int]


def read_tokens(path: Path) -> GgufTokens:
    """Read the tokens of a GGUF. An answer ends at the file's end tokens, and at those with known names."""
    import gguf

    fields = gguf.GGUFReader(str(path)).fields

    def content(name: str) -> list[object]:
        field = fields.get(f"tokenizer.ggml.{name}")
        value = field.contents() if field else []
        return value if isinstance(value, list) else [value]

    whole: dict[int, tuple[str, bool]] = {}
    ends: list[int] = []
    for name in END_NAMES:
        ends += [end for end in content(f"{name}_token_id") if isinstance(end, int)]
    for number, (text, kind) in enumerate(zip(content("tokens"), content("token_type"), strict=False)):
        if kind in (CONTROL, USER_DEFINED):
            whole[number] = str(text), kind == CONTROL
            if kind == CONTROL and text in ENDS_BY_NAME:
                ends.append(number)
    return GgufTokens(whole, list(dict.fromkeys(ends)))
