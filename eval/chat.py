"""tuneyard eval chat --model models/demo-base [--adapter rte] [--url http://localhost:8000/v1] [--once TEXT]

Talk to a model, with or without adapters, in the terminal. Answers appear as they are generated. With --url a
served model answers.
`exit`, `quit` or Ctrl-D ends the conversation, Ctrl-C ends an answer, `/use NAME` switches the adapter.
See docs/eval-chat.md.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tuneyard.core.cli.main import cli_command, explicit_options, typed_command
from tuneyard.core.cli.run import run_command
from tuneyard.core.errors import RequestError, TuneyardError, show_value
from tuneyard.core.language.message import _
from tuneyard.core.language.messages import say
from tuneyard.core.llamafactory.prompt import Encode, Messages
from tuneyard.core.text.terminal import visible
from tuneyard.eval.data.prompts import trained_system
from tuneyard.eval.figures.answers import cut_thought
from tuneyard.eval.models.generate import PRESETS, Sampling, choose_sampling, stream, without_thoughts
from tuneyard.eval.scoring.options import (
    ADAPTERS,
    Finite,
    adapter_option,
    dataset_dir,
    loading_options,
    number,
    server_options,
    with_options,
)
from tuneyard.eval.scoring.request import (
    OptionValues,
    ScoringRequest,
    request_of,
)

if TYPE_CHECKING:
    from tuneyard.eval.models.load import Model
    from tuneyard.eval.scoring.candidates import Candidate

Speak = Callable[[Callable[[str], None]], None]
"""Passes an answer on, piece by piece."""
Reply = Callable[[Messages], Speak]
"""Finds an answer to the messages. It may drop the oldest ones."""
WAYS_OUT = ("exit", "quit")
USE = "/use"
NO_ANSWER = _("(no answer: nothing was said, or nothing but a thought)")
SERVED_SAMPLING = ("temperature", "top_p")
LOCAL_SAMPLING = ("preset", "repetition_penalty", "no_repeat_ngram_size")
LOCAL = ("model", "adapters", "same_base", "template", "bos", "dtype", "quantize", "dataset_dir")
"""Options of a model in this process."""


@cli_command(
    "chat",
    "tuneyard eval chat --model models/demo-base --once 'What is LoRA?' --max-new-tokens 8",
    "tuneyard eval chat --model models/demo-base --adapter demo-rte --once 'true or false?' "
    "--max-new-tokens 4",
)
@click.option("--model", metavar="DIR|ID", help="Model or LoRA folder, or hub id.")
@adapter_option(help=f"Talk to this adapter. {ADAPTERS}")
@partial(with_options, server_options)
@click.option("--once", metavar="TEXT", help="Answer this and leave.")
@click.option("--system", metavar="TEXT", help="What the model is told first.  [as it was trained]")
@dataset_dir
@click.option("--think", is_flag=True, help="Let a model think, and show it.")
@number("--max-new-tokens", default=512, show_default=True, help="The longest answer.")
@click.option(
    "--preset",
    type=click.Choice(list(PRESETS)),
    help="Named settings, instead of the model's generation_config.",
)
@click.option("--temperature", type=Finite(0), help="0: greedy.")
@click.option("--top-p", type=Finite(0, 1, min_open=True))
@click.option("--repetition-penalty", type=Finite(0, min_open=True), help="1: none.")
@number("--no-repeat-ngram-size", type=click.IntRange(0), help="0: off.")
@partial(with_options, loading_options)
def cli(
    once: str | None,
    system: str | None,
    preset: str | None,
    temperature: float | None,
    top_p: float | None,
    **options: Any,
) -> None:
    """Talk to a model in the terminal, or have it answer one question.

    It answers as its generation_config says, greedily where that says nothing; the options go before it.
    With --url a served model answers.
    """
    if once is not None and not once.strip():
        raise RequestError(_("--once: found an empty text, expected a question"))
    explicit = explicit_options(click.get_current_context())
    request = request_of({**options, "out": Path()}, explicit, typed_command("eval.chat"))
    # A chat samples by the model's generation_config: there these two go alone, too.
    sampling_options = {**request.own, "temperature": temperature, "top_p": top_p}
    if request.url:
        served, reply = _open_served(request, sampling_options)
        messages: Messages = [{"role": "system", "content": system}] if system else []
        _talk(Chat(reply, request.think, messages), once, served, [served])
        return
    if not request.model:
        raise click.UsageError(_("Missing option '--model' for a model here, or '--url' for a served one."))
    request.refuse_explicit(["served_model", "timeout"], _("it is for --url"))
    from tuneyard.eval.models.load import in_this_process
    from tuneyard.eval.scoring.candidates import open_models

    opened = open_models(request)
    model = in_this_process(opened.backend)
    sampling = choose_sampling(model, preset, sampling_options)
    candidates = {candidate.name: candidate for candidate in opened.candidates}
    first = opened.candidates[-max(1, len(request.adapters))]  # the first adapter, else the model
    name: str | None = first.name
    turns: Messages = []
    while name is not None:
        candidate = candidates[name]
        messages = [*_begin(candidate, system, request.dataset_dir), *turns]
        trained = model.as_trained(candidate.prompting.tokenizer, candidate.prompting.ends)
        reply = local_reply(request, in_this_process(trained), candidate.prompting.encode, sampling)
        chat = Chat(reply, request.think, messages, candidate.prompting.keeps_thoughts)
        opened.backend.apply(candidate.adapters)
        name = _talk(chat, once, name, list(candidates))
        turns = [message for message in chat.messages if message["role"] != "system"]


def _talk(chat: "Chat", once: str | None, name: str, names: Sequence[str]) -> str | None:
    """Answer the question of --once, or line by line. The name of the model to go on with, None for none."""
    if once is None:
        return converse(chat, name, names)
    chat.answer(once)
    return None


def _open_served(request: ScoringRequest, options: OptionValues) -> tuple[str, Reply]:
    """Connect to the server: the name of its model. `RequestError` for options that it cannot take."""
    request.refuse_explicit(LOCAL_SAMPLING, _("OpenAI's interface does not have it: leave it out with --url"))
    request.refuse_explicit(LOCAL, _("it is for a model here: leave it out, or leave out --url"))
    from tuneyard.eval.models.open_server import connect

    settings: dict[str, object] = {"max_tokens": request.max_new_tokens}
    for option in SERVED_SAMPLING:
        if options[option] is not None:
            settings[option] = options[option]
    server = connect(str(request.url), request.served_model, "", request.timeout, _("try again"))

    def reply(messages: Messages) -> Speak:
        answer = server.connection.once(lambda: server.chat_with(messages, settings))
        return lambda show: show(answer.text)

    return server.model.model, reply


def local_reply(request: ScoringRequest, model: "Model", encode: Encode, sampling: Sampling) -> "Reply":
    """Answer with a model here. The oldest questions and answers are dropped until the prompt fits."""
    longest = request.max_new_tokens

    def reply(messages: Messages) -> Speak:
        while len(prompt := encode(messages)) > model.context - longest:
            oldest = [message["role"] for message in messages].index("user")
            if oldest == len(messages) - 1:
                raise RequestError(
                    _(
                        "{number} tokens and {new} for the answer exceed the context of {context}: shorten "
                        "the text or lower --max-new-tokens",
                        number=len(prompt),
                        new=longest,
                        context=model.context,
                    )
                )
            del messages[oldest : oldest + 2]
            say(_("(the context is full: the oldest question is forgotten)"), to_stderr=True)
        return lambda show: stream(model, prompt, longest, sampling, show)

    return reply


def _begin(candidate: "Candidate", system: str | None, dataset_dir: Path | None) -> Messages:
    """Start a conversation with the user's system text, or with that of the adapters' training.

    The training's system text is printed. An empty list means no system message.
    """
    if system is None and candidate.adapters:
        try:
            texts = {trained_system(weighted.adapter.folder, dataset_dir) for weighted in candidate.adapters}
            if len(texts) > 1:
                say(_("(no system text: the adapters were trained with different ones)"), to_stderr=True)
            else:
                system = texts.pop()
                if system:
                    say(_("(system text of the training: {text})", text=show_value(system)), to_stderr=True)
        except TuneyardError as error:
            say(
                _("(no system text: that of the training is not known: {reason})", reason=error),
                to_stderr=True,
            )
    if system:
        return [{"role": "system", "content": system}]
    return []


@dataclass(slots=True)
class Chat:
    """A conversation: how it is answered, and the messages so far, the system text first.

    `keeps_thoughts`: earlier answers have their thoughts, as in the training.
    """

    reply: Reply
    think: bool = False
    messages: Messages = field(default_factory=list)
    keeps_thoughts: bool = False

    def answer(self, text: str) -> None:
        """Print the answer to a text and remember both.

        `RequestError` if there is none: the text is too long for the context, or a server refuses it.
        """
        self.messages.append({"role": "user", "content": text})
        try:
            speak = self.reply(self.messages)
        except (RequestError, KeyboardInterrupt):
            self.messages.pop()
            raise
        generated = printed = ""

        def show(piece: str, ended: bool = False) -> None:
            """Print the part of the answer that is not on the screen yet."""
            nonlocal generated, printed
            generated += piece
            answer = generated
            if not self.think:
                answer = without_thoughts(generated, ended)
            unprinted = answer[len(printed) :]
            printed = answer
            click.echo(visible(unprinted), nl=ended)

        try:
            speak(show)
        finally:
            show("", ended=True)
            answer = cut_thought(generated)
            content = generated if self.keeps_thoughts else answer
            self.messages.append({"role": "assistant", "content": content})
        if not answer:
            say(NO_ANSWER, to_stderr=True)


def converse(chat: Chat, name: str, names: Sequence[str]) -> str | None:
    """Answer line by line until the user leaves (None) or switches to another model (its name)."""
    if sys.stdin.isatty():
        say(_("{name}: exit or quit leaves, Ctrl-C ends an answer", name=name), to_stderr=True)
    for line in lines():
        command, _blank, new_name = line.partition(" ")
        if command == USE and new_name in names:
            return new_name
        if command == USE:
            say(
                _(
                    "({command} NAME goes on with one of: {names}; now: {name})",
                    command=USE,
                    names=", ".join(names),
                    name=name,
                ),
                to_stderr=True,
            )
            continue
        try:
            chat.answer(line)
        except KeyboardInterrupt:
            say(_("(cut short)"), to_stderr=True)
        except RequestError as error:
            say(_("({error})", error=error), to_stderr=True)
    return None


def lines() -> Iterator[str]:
    """Read the user's lines, without blank ones, until exit, quit or the end of the input."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  lets input() edit a line, wide letters included
    prompt, farewell = ("> ", "\n") if sys.stdin.isatty() else ("", "")
    while True:
        try:
            line = input(prompt).strip()
        except EOFError:
            click.echo(farewell, nl=False)
            return
        except KeyboardInterrupt as error:
            raise click.Abort from error
        except UnicodeDecodeError as error:
            raise RequestError(
                _(
                    "the input is not {encoding} at byte {byte} of a line",
                    encoding=error.encoding,
                    byte=error.start,
                )
            ) from error
        if line.lower() in WAYS_OUT:
            return
        if line:
            yield line


if __name__ == "__main__":
    run_command(cli)
