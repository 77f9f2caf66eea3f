"""python -m eval.chat --model models/demo-base [--adapter rte] [--once TEXT]

A conversation in the terminal with a model or an adapter on it, the answers shown as they are
generated. `exit`, `quit` or Ctrl-D ends it, Ctrl-C an answer. docs/eval-chat.md says more.
"""

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from core.errors import CLI, RequestError, run
from core.prompt import Encode, Message
from eval.measure.answers import cut_thought
from eval.model.stream import Sampling, ThoughtFilter, stream
from eval.options import Finite, loading_options, take
from eval.subjects import open_models

if TYPE_CHECKING:
    from eval.model.load import Model

WAYS_OUT = ("exit", "quit")


@click.command(context_settings=CLI)
@click.option("--model", required=True, metavar="DIR|ID", help="Model or LoRA folder, or hub id.")
@click.option("--adapter", metavar="NAME[=DIR]", help="Talk to this adapter; NAME alone means saves/NAME.")
@click.option("--once", metavar="TEXT", help="Answer this and leave.")
@click.option("--system", metavar="TEXT", help="What the model is told before the conversation.")
@click.option("--think", is_flag=True, help="Let a model think, and show it.")
@click.option("--max-new-tokens", type=click.IntRange(1), metavar="N", default=512, show_default=True)
@click.option("--temperature", type=Finite(0), default=0.8, show_default=True, help="0: greedy.")
@click.option("--top-p", type=Finite(0, 1, min_open=True), default=0.9, show_default=True)
@click.option("--repetition-penalty", type=Finite(0, min_open=True), default=1.3, show_default=True)
@click.option(
    "--no-repeat-ngram-size",
    type=click.IntRange(0),
    metavar="N",
    default=3,
    show_default=True,
    help="0: off.",
)
@loading_options
def cli(adapter: str | None, once: str | None, system: str | None, **given: Any) -> None:
    """Talk to a model in the terminal, or have it answer one question."""
    if once is not None and not once.strip():
        raise RequestError("--once: found an empty text, expected a question")
    request = take({**given, "adapters": (adapter,) if adapter else (), "out": Path()})
    opened = open_models(request)
    subject = opened.subjects[-1]  # the adapter where there is one, else the base
    begin = [{"role": "system", "content": system}] if system else []
    sampling = Sampling(**{one.name: given[one.name] for one in fields(Sampling)})
    chat = Chat(opened.local, subject.prompting.encode, sampling, request.think, begin)
    with opened.applied(subject):
        if once is not None:
            chat.answer(once)
        else:
            converse(chat, subject.name)


@dataclass(slots=True)
class Chat:
    """A conversation: who answers and how, and all that was said, the system text first."""

    model: "Model"
    encode: Encode
    sampling: Sampling
    think: bool
    messages: list[Message] = field(default_factory=list)

    def answer(self, text: str) -> None:
        """Show the answer to a text and remember both, without the thought.

        An answer cut short (by Ctrl-C) is remembered as far as it was shown. `RequestError` if the text
        does not fit the context even without what was said before.
        """
        self.messages.append({"role": "user", "content": text})
        prompt = self._fitting()
        said: list[str] = []
        thoughts = ThoughtFilter()

        def show(piece: str) -> None:
            said.append(piece)
            click.echo(piece if self.think else thoughts.feed(piece), nl=False)

        try:
            stream(self.model, prompt, self.sampling, show)
        finally:
            click.echo("" if self.think else thoughts.end())
            answer = cut_thought("".join(said))
            self.messages.append({"role": "assistant", "content": answer})
        if not answer:
            click.echo("(no answer: nothing was said, or nothing but a thought)", err=True)

    def _fitting(self) -> list[int]:
        """Return the prompt's ids; the oldest question and answer are forgotten until it fits."""
        room = self.model.context - self.sampling.max_new_tokens
        while len(prompt := self.encode(self.messages)) > room:
            oldest = next(n for n, message in enumerate(self.messages) if message["role"] == "user")
            if oldest == len(self.messages) - 1:
                self.messages.pop()
                raise RequestError(
                    f"{len(prompt)} tokens and {self.sampling.max_new_tokens} for the answer exceed the "
                    f"context of {self.model.context}: shorten the text or lower --max-new-tokens"
                )
            del self.messages[oldest : oldest + 2]
            click.echo("(the context is full: the oldest question is forgotten)", err=True)
        return prompt


def converse(chat: Chat, name: str) -> None:
    """Answer line by line until the user leaves."""
    if sys.stdin.isatty():
        click.echo(f"{name}: exit or quit leaves, Ctrl-C ends an answer", err=True)
    for line in lines():
        try:
            chat.answer(line)
        except KeyboardInterrupt:
            click.echo("(cut short)", err=True)
        except RequestError as error:
            click.echo(f"({error})", err=True)


def lines() -> Iterator[str]:
    """Yield what the user types, blank lines left out, until exit, quit or the end of the input."""
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
                f"the input is not {error.encoding} at byte {error.start} of a line"
            ) from error
        if line.lower() in WAYS_OUT:
            return
        if line:
            yield line


if __name__ == "__main__":
    run(cli)
