"""What the files of a training say of its prompts and answers, read without transformers.

LLaMA-Factory adds its template's tokens to the base's tokenizer, replaces its end token ("Replace eos token:
<|im_end|>") and saves it beside the adapter, with the chat template. An answer ends in training at this
token, or at the one that the chat template writes after it. The base may know neither as an end.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from tuneyard.core.errors import ContentError, LimitError, show_value
from tuneyard.core.language.message import _
from tuneyard.core.llamafactory.prompt import SavedTemplate, find_chat_template
from tuneyard.core.llamafactory.prompt.rendering import template_renderer
from tuneyard.core.llamafactory.prompt.tokenizer_files import (
    TOKENIZER_CONFIG,
    TOKENIZER_JSON,
    added_tokens,
    listed_ends,
    read_tokenizer,
    special_texts,
    token_ids,
)

VOCABULARIES = (TOKENIZER_JSON, "tokenizer.model", "vocab.json")
_ANSWER = "\u2042answer\u2042"  # a text that is in no template
_EXCHANGE = [{"role": "user", "content": "?"}, {"role": "assistant", "content": _ANSWER}]


@dataclass(frozen=True, slots=True)
class TrainedFiles:
    """Tokenizer, chat template and end tokens of a training, or of a full model.

    `folder` has the tokenizer, `ids` are its tokens ({} without a tokenizer.json), `special` the texts of
    `eos_token` and the like. `ends` are the tokens at which an answer ends, the tokenizer's own first.
    """

    folder: Path
    ids: Mapping[str, int]
    special: Mapping[str, str]
    template: SavedTemplate | None
    ends: tuple[int, ...]

    @property
    def template_text(self) -> str | None:
        """The text of the chat template, None without one."""
        return self.template.text if self.template else None


def read_trained(folder: Path, base: Path | None = None) -> TrainedFiles:
    """Read how an adapter (or a full model, without a base) was trained: its own files before the base's.

    `ContentError` for damaged files, and for a special token that the vocabulary lacks.
    """
    place = tokenizer_folder(folder, base)
    ids = token_ids(read_tokenizer([place]))
    special = trained_special(folder, place, ids)
    template = find_chat_template(folder)
    if template is None and base is not None:
        template = find_chat_template(base)
    texts = [special.get("eos_token", "")]
    if template is not None:
        try:
            texts.append(end_after_answer(template.text, special, added_tokens(place)))
        except LimitError as error:
            raise LimitError(_("{path}: {error}", path=template.file, error=error)) from error
    ends = [ids[text] for text in texts if text in ids]
    for each in (folder, base):
        if each is not None:
            ends += listed_ends(each)
    return TrainedFiles(place, ids, special, template, tuple(dict.fromkeys(ends)))


def has_tokenizer(folder: Path) -> bool:
    """True if a folder has a whole tokenizer, and not the settings of one alone."""
    return any((folder / name).is_file() for name in VOCABULARIES)


def tokenizer_folder(folder: Path, base: Path | None) -> Path:
    """The folder of the tokenizer of a training: the adapter's own, otherwise the base's."""
    if base is not None and not has_tokenizer(folder):
        return base
    return folder


def trained_special(folder: Path, place: Path, vocabulary: Collection[str]) -> dict[str, str]:
    """Texts of special tokens. Settings without a vocabulary of their own change those of the tokenizer."""
    special = special_texts([place])
    if folder == place:
        return special
    changed = special_texts([folder])
    for name, text in changed.items():
        if vocabulary and text not in vocabulary:
            raise ContentError(
                _(
                    "{path}: {name} is {token}, expected a token of the base's vocabulary; copy "
                    "the training's {file} into {folder}",
                    path=folder / TOKENIZER_CONFIG,
                    name=name,
                    token=show_value(text),
                    file=TOKENIZER_JSON,
                    folder=folder,
                )
            )
    return {**special, **changed}


def ends_with(template: str, trained: TrainedFiles) -> list[int]:
    """The end tokens of a training whose prompts another chat template writes."""
    text = end_after_answer(template, trained.special, added_tokens(trained.folder))
    ends = list(trained.ends)
    if text in trained.ids and trained.ids[text] not in ends:
        ends.append(trained.ids[text])
    return ends


def end_after_answer(template: str, special: Mapping[str, str], tokens: Collection[str]) -> str:
    """The first of these tokens that a chat template writes after an answer, "" without one."""
    try:
        text = template_renderer(template, special)(_EXCHANGE, False)
    except LimitError:
        raise
    except ContentError:  # a damaged template, which fails where it writes a prompt
        return ""
    _before, _answer, after = text.partition(_ANSWER)
    places = [(after.index(token), -len(token), token) for token in tokens if token and token in after]
    if not places:
        return ""
    _place, _length, first = min(places)
    return first
