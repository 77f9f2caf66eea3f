"""Which prompt a model is given: the one its adapter was trained with, or what to warn of.

`--template NAME` renders LLaMA-Factory's template; else the chat template saved beside the adapter,
else the base tokenizer's, else plain text.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneyard.core.datasets import find_dataset, registry_folder
from tuneyard.core.documents import read_yaml
from tuneyard.core.errors import ContentError, RequestError
from tuneyard.core.prompt import (
    Encode,
    Message,
    chat_encoder,
    chat_renderer,
    llamafactory_encoder,
    saved_chat_template,
)
from tuneyard.core.supervision import ToTurns, Turns, chat_turns, llamafactory_turns
from tuneyard.core.training_run import names_in, run_folders, run_of
from tuneyard.eval.datasets.dataset import trained_conversations

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PLAIN = "plain text (no chat template)"
WITHOUT_BOS = f"{PLAIN} without the tokenizer's BOS"
AFTER_BOS = f"{PLAIN} after BOS"
SETTINGS = ("recipe.yaml", "training_args.yaml")  # of a training that ours began, or LLaMA-Factory's web page
QUESTION = {"role": "user", "content": "Is it?"}
SAMPLED = 1000
TALKS = (
    [QUESTION],
    [{"role": "system", "content": "Be brief."}, QUESTION],
    [QUESTION, {"role": "assistant", "content": "Yes."}, QUESTION],
)


@dataclass(frozen=True, slots=True)
class Prompting:
    """How messages become ids, to be asked or to be learned from, where that comes from, and a hash of it."""

    encode: Encode
    turns: ToTurns
    source: str
    digest: str


def choose_prompting(
    tokenizer: "PreTrainedTokenizerBase",
    adapters: Sequence[Path],
    template: str | None,
    think: bool = False,
    bos: bool = False,
) -> Prompting:
    """Return the prompting with adapters' folders (`bos`: after BOS); `RequestError` where none fits all."""
    if template:
        encode = llamafactory_encoder(tokenizer, template, think)
        turns = llamafactory_turns(tokenizer, template, think)
        return Prompting(encode, turns, f"LLaMA-Factory template {template}", _hash(template))
    own = tokenizer.chat_template if isinstance(tokenizer.chat_template, str) else None
    beside = {folder: saved_chat_template(folder) for folder in adapters}
    if len({saved or own for saved in beside.values()}) > 1:
        named = ", ".join(map(str, adapters))
        raise RequestError(f"{named} were trained with different chat templates: name one with --template")
    begin = tokenizer.bos_token_id
    adds_bos = begin is not None and tokenizer("a")["input_ids"][0] == begin
    source = "chat template of the tokenizer" if own else WITHOUT_BOS if adds_bos else PLAIN
    text = own
    for folder, saved in beside.items():
        if saved:
            source, text = f"chat template of {folder}", saved
    turns = chat_turns(tokenizer, chat_renderer(tokenizer, text, think))
    prompting = Prompting(chat_encoder(tokenizer, text, think), turns, source, _hash(text or ""))
    return _after_bos(tokenizer, prompting) if bos and text is None else prompting


def _after_bos(tokenizer: "PreTrainedTokenizerBase", plain: Prompting) -> Prompting:
    bos = tokenizer.bos_token_id
    if bos is None:
        raise RequestError("--bos: this tokenizer has no BOS token: leave it out")

    def turns(messages: list[Message]) -> Turns:
        told = plain.turns(messages)
        (source, target), *others = told.pairs
        return replace(told, pairs=[([bos, *source], target), *others])

    digest = _hash(str(tokenizer.bos_token))
    return Prompting(lambda messages: [bos, *plain.encode(messages)], turns, AFTER_BOS, digest)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def other_prompt(
    tokenizer: "PreTrainedTokenizerBase",
    folder: Path,
    prompting: Prompting,
    asked: str | None,
    talks: Sequence[list[Message]] = TALKS,
) -> str | None:
    """Return what to warn of if an adapter was trained with another prompt than it is asked with, else None.

    `asked` is the --template, `talks` what is compared. A recipe that names another template costs the import
    of LLaMA-Factory (10 s).
    """
    settings = training_settings(folder)
    template = settings.get("template")
    if not settings or template == asked:
        return None
    try:
        chosen = choose_prompting(tokenizer, [folder], str(template or ""))
        same = all(chosen.encode(talk) == prompting.encode(talk) for talk in talks)
    except RequestError as error:
        return (
            f"{folder} was trained with template {template}, not checked whether it is prompted so: {error}"
        )
    if same:
        return None
    way = f"--template {template} prompts with it" if template else "leave --template out to prompt with it"
    own = template or "its own chat template"
    return f"{folder} was trained with {own}, and is prompted with {prompting.source}: {way}"


def trained_template(folder: Path) -> str | None:
    """Return the template that a recipe names, "" if it names none; None without recipe or for stage pt."""
    settings = training_settings(folder)
    return str(settings.get("template") or "") if settings and settings.get("stage") != "pt" else None


def trained_system(folder: Path) -> str | None:
    """Return the one system text of a training's examples or recipe, or None; `TuneyardError` for several."""
    settings = training_settings(folder)
    named, registry = settings.get("dataset"), Path(str(settings.get("dataset_dir") or registry_folder()))
    texts = set()
    for name in names_in(named):
        for talk in trained_conversations(find_dataset(name, registry), SAMPLED):
            first = talk.messages[0]
            texts.add(first["content"] if first["role"] == "system" else settings.get("default_system"))
    if len(texts) > 1:
        raise ContentError(f"the examples of {named} have several; --system gives one")
    text = texts.pop() if texts else None
    return text if isinstance(text, str) else None


def training_settings(folder: Path) -> dict[str, Any]:
    """Return the settings of the training that left an adapter, a run or a checkpoint; {} if unknown."""
    kept = [run_of(folder).get("settings")]
    for place in run_folders(folder):
        kept += [read_yaml(place / name, "recipe").value for name in SETTINGS if (place / name).is_file()]
    return next((settings for settings in kept if isinstance(settings, dict)), {})
