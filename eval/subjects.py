"""The models of a run: the base, loaded once, and what stands beside it, or a model behind a server."""

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from adapters.config import CONFIG
from adapters.parts import Part, open_parts, parse_weight
from adapters.store import open_adapter
from core.errors import RequestError
from core.supervision import Turns
from eval.model import shards
from eval.model.ask import Speaker
from eval.model.generate import Local
from eval.model.prompts import Prompting, choose_prompting
from eval.model.recipe import other_prompt
from eval.model.server import Server
from eval.options import Request

if TYPE_CHECKING:
    from eval.model.load import Model

BASE = "base"
BATCH_TOKENS = {"cpu": 2048, "cuda": 32768, "server": 0}


@dataclass(frozen=True, slots=True)
class Subject:
    """One model of the table: the base (no parts), or with adapters by weight, and how it is asked."""

    name: str
    parts: tuple[Part, ...]
    prompting: Prompting

    @property
    def identity(self) -> str:
        """What must be the same in a run that is resumed."""
        if not self.parts:
            return "no adapter"
        if [part.weight for part in self.parts] == [1.0]:
            return self.parts[0].adapter.digest
        told = "+".join(f"{part.adapter.digest}:{part.weight!r}" for part in self.parts)
        return hashlib.sha256(told.encode()).hexdigest()

    def per_adapter(self, values: Callable[[Part], object]) -> dict[str, object]:
        """Return a value for each part, by the adapter's name (its folder where two have one name)."""
        names = [part.adapter.name for part in self.parts]
        return {
            name if names.count(name) == 1 else str(part.adapter.folder): values(part)
            for name, part in zip(names, self.parts, strict=True)
        }


@dataclass(frozen=True, slots=True)
class Opened:
    """A loaded base (or a server), the hash of its files, and all that is to be asked of it."""

    model: "Model | Server"
    digest: str
    subjects: list[Subject]
    budget: int
    fold: bool

    @contextlib.contextmanager
    def applied(self, subject: Subject) -> Iterator[None]:
        """Let the model answer as `subject` while the context lasts."""
        if isinstance(self.model, Server):
            yield
            return
        from eval.model.live import applied

        with applied(self.model, subject.parts, fold=self.fold):
            yield

    @property
    def local(self) -> "Model":
        """The model in this process; `RequestError` for a server, which shows no probabilities."""
        if isinstance(self.model, Server):
            raise RequestError("--backend openai only generates: this needs the model's probabilities")
        return self.model

    def speaker(self, subject: Subject) -> Speaker:
        """Return who generates the subject's answers."""
        if isinstance(self.model, Server):
            return self.model
        return Local(self.model, subject.prompting.encode, self.budget)


def open_models(request: Request) -> Opened:
    """Open every adapter, load the base once, and check that they belong together."""
    if request.backend == "openai":
        return _open_server(request)
    if request.url is not None:
        raise RequestError("--url is for --backend openai: without it, the model here would be asked")
    if request.quantize and request.apply == "fold":
        raise RequestError("--apply fold adds into plain weights, --quantize leaves none: give one of them")
    reference, wanted = _open_adapters(request)

    from eval.model.live import check_base, check_fits
    from eval.model.load import find_model, load_model, model_digest

    shards.start()
    folder = find_model(reference)
    model = load_model(folder, request.dtype, request.quantize)
    digest = model_digest(folder)
    subjects = []
    for name, parts in wanted.items():
        for part in parts:
            check_fits(model, part.adapter)
            check_base(part.adapter, folder, reference, digest)
        beside = [part.adapter.folder for part in parts]
        prompting = choose_prompting(model.tokenizer, beside, request.template, request.think)
        subjects.append(Subject(name, parts, prompting))
        for folder in beside if not request.think else []:
            if told := other_prompt(model.tokenizer, folder, prompting, request.template):
                click.echo(f"warning: adapter {told}", err=True)
    return Opened(model, digest, subjects, _budget(request, model.device), request.apply == "fold")


def _open_server(request: Request) -> Opened:
    if request.adapters or not request.url:
        raise RequestError("--backend openai needs --url and --mode generate, and takes no --adapter")
    server = Server(request.url.rstrip("/"), request.model)
    digest = hashlib.sha256(f"{server.url} {server.name}".encode()).hexdigest()
    prompting = Prompting(lambda _: [], lambda _: Turns([]), "the server's own", digest)
    subject = Subject(Path(request.model).name, (), prompting)
    return Opened(server, digest, [subject], _budget(request, server.device), fold=False)


def _budget(request: Request, device: str) -> int:
    return request.batch_tokens or BATCH_TOKENS[device]


def _open_adapters(request: Request) -> tuple[str, dict[str, tuple[Part, ...]]]:
    """Return the base model and the models of the table by name; a LoRA folder as --model is one of them.

    `RequestError` for a name that is taken or cannot name a folder, or if nothing is left to score.
    """
    subjects: dict[str, tuple[Part, ...]] = {} if request.no_base else {BASE: ()}
    reference = request.model
    if (Path(reference) / CONFIG).is_file():
        own = open_adapter(Path(reference))
        if own.base is None:
            raise RequestError(
                f"{reference}: its config names no base: --model BASE --adapter {own.name}={reference}"
            )
        reference, subjects[own.name] = own.base, (Part(own, 1.0),)
    for text in request.adapters:
        name, _, given = text.partition("=")
        if not name or Path(name).name != name or name.startswith(".") or name == BASE or name in subjects:
            raise RequestError(f"--adapter {text}: expected NAME=DIR with a new NAME that can name a folder")
        subjects[name] = tuple(_open_parts(given or name))
    if not subjects:
        raise RequestError("--no-base without --adapter leaves nothing to score")
    return reference, subjects


def _open_parts(given: str) -> list[Part]:
    """Open an adapter, or several with their weights: `rte:0.5+mnli:0.5`."""
    if ":" not in given or Path(given).is_dir():
        return [Part(open_adapter(given), 1.0)]
    pairs = []
    for text in given.split("+"):
        reference, _, weight = text.rpartition(":")
        if not reference:
            raise RequestError(f"--adapter …={given}: {text!r}: expected ADAPTER:WEIGHT+ADAPTER:WEIGHT")
        pairs.append((reference, parse_weight(weight, reference)))
    return open_parts(pairs)
