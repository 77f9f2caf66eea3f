"""Choose a model's prompts as in the training of its adapter. Warn of any difference.

`--template NAME` renders LLaMA-Factory's template. Without it the chat template saved with the adapter comes
first, then the base tokenizer's, then plain text.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tuneyard.core.datasets import find_dataset, registry_folder
from tuneyard.core.datasets.trained_examples import trained_conversations
from tuneyard.core.errors import ContentError, RequestError
from tuneyard.core.files import text_sha256
from tuneyard.core.language.message import _, joined, relative
from tuneyard.core.llamafactory.prompt import (
    PROBES,
    TODAY,
    Encode,
    Ids,
    Messages,
    Tokenizer,
    TrainedHistory,
    chat_renderer,
    default_name,
    find_chat_template,
    llamafactory_encoder,
    prompt_ids,
)
from tuneyard.core.llamafactory.prompt.history_match import equal_length
from tuneyard.core.llamafactory.prompt.supervision import (
    EncodeConversation,
    EncodedConversation,
    chat_turns,
    llamafactory_turns,
)
from tuneyard.core.llamafactory.prompt.trained_tokenizer import open_trained
from tuneyard.core.records import ANSWERS, QUESTIONS
from tuneyard.core.training.training_run import names_in, training_settings

PLAIN = _("plain text (no chat template)")
WITHOUT_BOS = _("plain text (no chat template) without the tokenizer's BOS")
AFTER_BOS = _("plain text (no chat template) after BOS")
SAMPLED = 1000
SHOWN = 24
"""Tokens around the first difference of two prompts that are printed."""
ONE_TURN = PROBES[:2]
"""Conversations of one question. Others are compared if the data has some."""
ANSWERED = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]


class OtherTurn(NamedTuple):
    """A turn, counted from 1, that is trained and prompted after other ids: those around the difference."""

    turn: int
    trained: Ids
    prompted: Ids

    def words(self, tokenizer: Tokenizer) -> str:
        """Say it in words, with both texts."""
        trained, prompted = (repr(tokenizer.decode(ids)) for ids in (self.trained, self.prompted))
        return _(
            "turn {turn} was trained after {trained}, and is prompted after {prompted}",
            turn=self.turn,
            trained=trained,
            prompted=prompted,
        )


@dataclass(frozen=True, slots=True)
class Prompting:
    """Converters of messages to prompt ids and to training turns, their origin, and a hash of it.

    `tokenizer` is that of the training, None if the prompts are made elsewhere. `ends` are the tokens that
    end an answer, None for the model's own. `keeps_thoughts`: earlier answers have their thoughts, as in the
    training. `day` is the date in the prompts, None if they have none.
    """

    encode: Encode
    turns: EncodeConversation
    source: str
    digest: str
    tokenizer: "Tokenizer | None" = None
    ends: tuple[int, ...] | None = None
    keeps_thoughts: bool = False
    day: date | None = None

    @property
    def identity(self) -> str:
        """Key of prompts and end tokens that must be the same in a resumed run."""
        if self.ends is None:
            return self.digest
        return text_sha256(f"{self.digest} {self.ends}")


def choose_prompting(
    tokenizer: Tokenizer,
    adapters: Sequence[Path],
    template: str | None,
    think: bool = False,
    bos: bool = False,
    day: date | None = None,
) -> Prompting:
    """Choose the prompting of a candidate with these adapter folders (`bos`: plain text begins with BOS).

    `tokenizer` is that of the base. A template that writes the date writes `day`, by default today.
    `RequestError` if the adapters have different chat templates or tokens.
    """
    day = day or date.today()
    if not adapters:
        return _prompting(tokenizer, (), template, think, bos, day)
    trained_tokenizer, ends = open_trained(adapters, tokenizer)
    prompting = _prompting(trained_tokenizer, adapters, template, think, bos, day)
    after_answer = end_after_answer(prompting.turns, trained_tokenizer)
    return replace(prompting, ends=tuple(sorted({*ends, *after_answer})))


def end_after_answer(turns: EncodeConversation, tokenizer: Tokenizer) -> list[int]:
    """The special token that follows an answer in training, otherwise the tokenizer's end token."""
    try:
        written = turns(ANSWERED)
    except ContentError:  # a template that writes an answered turn otherwise
        written = EncodedConversation([])
    following = []
    if written.pairs:
        following = [*written.pairs[-1][1], written.stop]
    special_ids = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    for token in [*following, tokenizer.eos_token_id]:
        if token in special_ids:
            return [token]
    return []


def _prompting(
    tokenizer: Tokenizer, adapters: Sequence[Path], template: str | None, think: bool, bos: bool, day: date
) -> Prompting:
    """The prompting with the tokenizer of the training, without its end tokens."""
    if template:
        history = trained_history(adapters, template)
        encode = llamafactory_encoder(tokenizer, template, think, history)
        turns = llamafactory_turns(tokenizer, template, think, history)
        source: str = _("LLaMA-Factory template {name}", name=template)
        digest = text_sha256(template if history is None else f"{template} {tuple(history)}")
        keeps_thoughts = history is not None and history.keeps_thoughts
        return Prompting(encode, turns, source, digest, tokenizer, keeps_thoughts=keeps_thoughts)
    saved_templates = {folder: find_chat_template(folder) for folder in adapters}
    base_template = None
    if not adapters or not all(saved_templates.values()):
        base_template = _template_of(tokenizer)
    if len({saved.text if saved else base_template for saved in saved_templates.values()}) > 1:
        raise RequestError(
            _(
                "{folders} were trained with different chat templates: name one with --template",
                folders=joined(map(relative, adapters)),
            )
        )
    text = base_template
    source = _("chat template of the tokenizer")
    if base_template is None:
        bos_id = tokenizer.bos_token_id
        adds_bos = bos_id is not None and tokenizer("a")["input_ids"][0] == bos_id
        source = WITHOUT_BOS if adds_bos else PLAIN
    place = str(getattr(tokenizer, "name_or_path", ""))
    for folder, saved in saved_templates.items():
        if saved:
            source, text, place = _("chat template of {folder}", folder=folder), saved.text, str(saved.file)
    render = chat_renderer(tokenizer, text, think, day, place)
    encode, turns = partial(prompt_ids, tokenizer, render), partial(chat_turns, tokenizer, render)
    written_day = day if TODAY in (text or "") else None
    prompting = Prompting(encode, turns, source, text_sha256(text or ""), tokenizer, day=written_day)
    return _after_bos(tokenizer, prompting) if bos and text is None else prompting


def _template_of(tokenizer: Tokenizer) -> str | None:
    """The tokenizer's chat template, None without one. Of several it is `default`."""
    templates = tokenizer.chat_template
    if isinstance(templates, dict):
        templates = templates[default_name(templates, tokenizer.name_or_path)]
    return templates if isinstance(templates, str) else None


def _after_bos(tokenizer: Tokenizer, plain: Prompting) -> Prompting:
    bos = tokenizer.bos_token_id
    if bos is None:
        raise RequestError(_("--bos: this tokenizer has no BOS token: leave it out"))

    def turns(messages: Messages) -> EncodedConversation:
        plain_turns = plain.turns(messages)
        (source, target), *others = plain_turns.pairs
        return plain_turns._replace(pairs=[([bos, *source], target), *others])

    digest = text_sha256(str(tokenizer.bos_token))
    return Prompting(lambda messages: [bos, *plain.encode(messages)], turns, AFTER_BOS, digest, tokenizer)


def other_prompt(
    tokenizer: Tokenizer,
    folder: Path,
    prompting: Prompting,
    template: str | None,
    talks: Sequence[Messages] = ONE_TURN,
) -> str | None:
    """Warning if an adapter was trained with other prompts than it now gets, otherwise None.

    `template` is the --template, `talks` are the conversations to compare. A recipe that names another
    template costs the import of LLaMA-Factory (10 s).
    """
    settings = training_settings(folder)
    trained = settings.get("template")
    if not settings:
        return None
    if not (trained or template):
        return _other_reading(tokenizer, folder, prompting, talks)
    if trained == template:
        return None
    try:
        chosen = choose_prompting(tokenizer, [folder], str(trained or ""), day=prompting.day)
        differing = next((talk for talk in talks if chosen.encode(talk) != prompting.encode(talk)), None)
    except RequestError as error:
        return _(
            "{folder} was trained with template {template}; its prompts were not compared: {error}",
            folder=folder,
            template=trained,
            error=error,
        )
    if differing is None:
        return None
    source = _("its own chat template")
    fix = _("leave --template out to prompt with it")
    if trained:
        source = trained
        fix = _("--template {template} prompts with it", template=trained)
    difference = first_other_turn(differing, chosen.encode, prompting.encode)
    if difference.turn > 1:
        words = difference.words(prompting.tokenizer or tokenizer)
        fix = _("{difference}: {fix}", difference=words, fix=fix)
    return _(
        "{folder} was trained with {source}, and is prompted with {other}: {fix}",
        folder=folder,
        source=source,
        other=prompting.source,
        fix=fix,
    )


def _other_reading(
    tokenizer: Tokenizer, folder: Path, prompting: Prompting, talks: Sequence[Messages]
) -> str | None:
    """Warning if LLaMA-Factory read the chat template otherwise for earlier turns, when none was named.

    It takes the question's part of the chat template from the first one, which may have the begin of the
    text or a system text, and writes that before each question.
    """
    with_history = [talk for talk in talks if any(message["role"] in ANSWERS for message in talk)]
    history = trained_history([folder], "")
    if not with_history or history is None:
        return None
    trained_tokenizer = prompting.tokenizer or tokenizer
    encode = llamafactory_encoder(trained_tokenizer, "", history=history)
    for talk in with_history:
        if encode(talk) == prompting.encode(talk):
            continue
        difference = first_other_turn(talk, encode, prompting.encode)
        if difference.turn > 1:
            return _(
                "{folder} was trained without a template, and {difference}: "
                "no option prompts so; train with LLaMA-Factory's template of this model",
                folder=folder,
                difference=difference.words(trained_tokenizer),
            )
    return None


def first_other_turn(talk: Messages, trained: Encode, prompted: Encode) -> OtherTurn:
    """The first turn of a conversation before which two encoders write other ids. It must have one."""
    turn = 0
    for place, message in enumerate(talk):
        if message["role"] not in QUESTIONS:
            continue
        turn += 1
        trained_ids, ids = trained(talk[: place + 1]), prompted(talk[: place + 1])
        if trained_ids != ids:
            begin = max(0, equal_length(trained_ids, ids) - 3)
            return OtherTurn(turn, trained_ids[begin : begin + SHOWN], ids[begin : begin + SHOWN])
    raise ValueError("both encoders write the same ids")


def trained_history(folders: Sequence[Path], template: str) -> TrainedHistory | None:
    """How trainings with this template wrote earlier turns. None if that is not known, or if they differ."""
    histories = set()
    for folder in folders:
        settings = training_settings(folder)
        if str(settings.get("template") or "") != template or settings.get("stage") == "pt":
            return None
        histories.add(TrainedHistory.of(settings))
    if len(histories) != 1:
        return None
    return histories.pop()


def trained_template(folder: Path) -> str | None:
    """The template that a recipe names, "" if it names none. None without a recipe, and for stage pt."""
    settings = training_settings(folder)
    if not settings or settings.get("stage") == "pt":
        return None
    return str(settings.get("template") or "")


def trained_system(folder: Path, dataset_dir: Path | None) -> str | None:
    """The system text of a training's examples or recipe, None without one; `TuneyardError` for several.

    `dataset_dir` is that of the command line, for a training that names none.
    """
    settings = training_settings(folder)
    registry = Path(str(settings.get("dataset_dir") or registry_folder(dataset_dir)))
    texts = set()
    for name in names_in(settings.get("dataset")):
        for talk in trained_conversations(find_dataset(name, registry), SAMPLED):
            first = talk.messages[0]
            texts.add(first["content"] if first["role"] == "system" else settings.get("default_system"))
    if len(texts) > 1:
        raise ContentError(
            _(
                "the examples of {name} have several system texts; --system gives one",
                name=settings.get("dataset"),
            )
        )
    text = texts.pop() if texts else None
    return text if isinstance(text, str) else None
