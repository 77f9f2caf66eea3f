"""`tuneyard adapter serve`: check adapters and engine, write the files of the server, and start it."""

import errno
import os
import shlex
import shutil
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import click

from tuneyard.adapters.adapter import name_of
from tuneyard.adapters.export.architecture import Architecture
from tuneyard.adapters.serve import llama_cpp, vllm_command
from tuneyard.adapters.serve.files import Inputs, ServingFolder
from tuneyard.adapters.serve.llama_cpp import LlamaServer
from tuneyard.adapters.serve.template import (
    has_llamafactory,
    serving_template,
    trained_template,
    trained_with,
)
from tuneyard.adapters.serve.training import ServedModels, Settings, open_served
from tuneyard.adapters.store import note
from tuneyard.core.datasets import DEFAULT_FOLDER, LLAMAFACTORY_FOLDER, eval_split, read_registry
from tuneyard.core.errors import ContentError, RequestError, show_value
from tuneyard.core.errors.warn import warn
from tuneyard.core.files import json_text, write_text
from tuneyard.core.installation.packages import after_vllm_setup, install_command, missing
from tuneyard.core.training.training_run import names_in

VLLM, LLAMA_CPP = "vllm", "llama.cpp"
CHAT_TEMPLATE, GENERATION = "chat_template.jinja", "generation_config.json"
LINE = 96  # characters of a printed command line


@dataclass(frozen=True, slots=True)
class ServeRequest:
    """A `serve` command."""

    references: Sequence[str]
    engine: str | None
    base: Path | None
    out: Path
    host: str
    port: int | None
    think: bool


@dataclass(frozen=True, slots=True)
class ServingPlan:
    """Checked models, and the command that serves them. `architectures` are those of adapters by name.

    `template` is the saved chat template without options, before it is compared with the training's.
    """

    engine: str
    models: ServedModels
    folder: ServingFolder
    template: str
    think: bool
    host: str
    port: int
    architectures: dict[str, Architecture]

    @property
    def name(self) -> str:
        """Name of the folder with template and generation config: the first adapter, or the full model."""
        if self.models.adapters:
            return self.models.adapters[0].name
        return name_of(self.models.folder)

    @property
    def url(self) -> str:
        """Address of the OpenAI-compatible interface."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/v1"

    @property
    def llama_server(self) -> LlamaServer:
        """The settings for llama.cpp."""
        return LlamaServer(
            model=self.folder.path(llama_cpp.base_file(self.models)),
            alias=name_of(self.models.folder),
            adapters=[self.folder.path(llama_cpp.adapter_file(one)) for one in self.models.adapters],
            template=self.folder.path(self._template_file),
            context=self.models.context,
            host=self.host,
            port=self.port,
        )

    @property
    def command(self) -> list[str]:
        """The words of the engine's own command."""
        if self.engine == LLAMA_CPP:
            return self.llama_server.words()
        template = self.folder.path(self._template_file)
        return vllm_command.vllm_words(self.models, template, template.parent, self.host, self.port)

    def lines(self) -> list[str]:
        """What is served and how, and the command."""
        models = self.models
        adapters = "no adapters"
        if models.adapters:
            adapters = ", ".join(adapter.name for adapter in models.adapters)
        context = "the model's own"
        if models.context is not None:
            context = f"{models.context:,} tokens"
        if models.length is not None:
            context += f" (cutoff_len {models.length:,} and {models.new_tokens:,} new ones; "
            context += f"the base's limit is {models.limit:,})" if models.limit else "no limit of the base)"
        lines = [f"base      {models.name}", f"adapters  {adapters}", f"context   {context}"]
        if self.engine == LLAMA_CPP and len(models.adapters) > 1:
            ids = [f"id {number}: {adapter.name}" for number, adapter in enumerate(models.adapters)]
            lines.append(
                'choice    by the request\'s "lora": [{"id": 0, "scale": 1}], without it the base answers '
                f"({', '.join(ids)})"
            )
        elif self.engine == LLAMA_CPP and models.adapters:
            lines.append("choice    the adapter answers every request")
        elif models.adapters:
            lines.append(f"choice    by the request's model: {models.name}, {adapters}")
        return [*lines, f"files     {self.folder.folder}", "", command_text(self.command)]

    def prove_command(self) -> list[str]:
        """The command that compares the running server with the adapters."""
        words = ["tuneyard", "eval", "prove", "--model", self.models.name]
        for adapter in self.models.adapters:
            words += ["--adapter", f"{adapter.name}={adapter.folder}"]
        words += ["--url", self.url]
        datasets: list[str] = []
        for settings in self.models.trainings:
            datasets += _held_out(settings)
        for name in dict.fromkeys(datasets or ["NAME"]):
            words += ["--dataset", name]
        folders = {_dataset_dir(settings) for settings in self.models.trainings}
        if len(folders) == 1 and not folders & {str(DEFAULT_FOLDER), str(LLAMAFACTORY_FOLDER)}:
            words += ["--dataset-dir", *folders]
        return [*words, "--out", "results/parity"]

    def check_files(self) -> None:
        """`RequestError` if a file that is not ours is in the way, or would lie in an input.

        This is known before anything is written.
        """
        names = [self._template_file]
        if self.engine == LLAMA_CPP:
            names.append(llama_cpp.base_file(self.models))
            names += [llama_cpp.adapter_file(adapter) for adapter in self.models.adapters]
        else:
            names.append(self._generation_file)
        inputs = [self.models.folder, *(adapter.folder for adapter in self.models.adapters)]
        self.folder.check_outside(inputs, names)
        for name in names:
            self.folder.find(name, {})

    def write(self) -> None:
        """Write the files of the server that are not there."""
        ends = self._write_template()
        if self.engine == LLAMA_CPP:
            base_inputs = llama_cpp.base_inputs(self.models, ends)
            writer = llama_cpp.write_base(self.models, ends)
            self.folder.write(llama_cpp.base_file(self.models), base_inputs, writer)
            llama_cpp.write_adapters(self.folder, self.models, self.architectures)
        else:
            text = json_text({"eos_token_id": ends})
            self._write_text(self._generation_file, text, {"text": text})

    def _write_template(self) -> list[int]:
        """Write the chat template of the training; the ids of its end tokens."""
        trainings = []
        for settings in self.models.trainings:
            trained = trained_with(settings)
            if settings.get("stage") != "pt" and trained not in trainings:
                trainings.append(trained)
        if trainings and not has_llamafactory():
            note("LLaMA-Factory is not installed: the chat template was not compared with the training's")
            trainings = []
        inputs = {"template": self.template, "trainings": trainings, "think": self.think}
        written = self.folder.find(self._template_file, inputs)
        if written:
            self._warn_of_another_template(self.folder.path(self._template_file).read_text(encoding="utf-8"))
            return [*self.models.ends, *written["ends"]]
        text, more_ends = self.template, set()
        texts = set()
        for trained in trainings:
            text, ends = trained_template(self.models.tokenizer.folder, trained, self.template, self.think)
            texts.add(text)
            more_ends.update(ends)
        if len(texts) > 1:
            raise RequestError("the adapters were trained with different templates: serve each on its own")
        self._warn_of_another_template(text)
        more = sorted(more_ends - set(self.models.ends))
        self._write_text(self._template_file, text, inputs, {"ends": more})
        return [*self.models.ends, *more]

    def _warn_of_another_template(self, text: str) -> None:
        """Warn if the template of the training, which is served, is not the one that the model saved."""
        if text == self.template:
            return
        saved = "no chat template is saved, and joined texts have"
        if self.models.template is not None:
            saved = f"{self.models.template.file}: this chat template gives"
        warn(
            f"{saved} other token ids than the training had; served is the template of the training, "
            f"{self.folder.path(self._template_file)}"
        )

    def _write_text(self, name: str, text: str, inputs: Inputs, facts: Inputs | None = None) -> None:
        self.folder.write(name, inputs, lambda path: write_text(path, text), facts)

    @property
    def _template_file(self) -> str:
        return f"{self.name}/{CHAT_TEMPLATE}"

    @property
    def _generation_file(self) -> str:
        return f"{self.name}/{GENERATION}"


def plan_serving(request: ServeRequest) -> ServingPlan:
    """Check adapters, base and engine. Errors are those of the parts."""
    engine = request.engine
    if engine is None:
        engine = VLLM if shutil.which(vllm_command.PROGRAM) else LLAMA_CPP
    models = open_served(request.references, request.base, weights=engine == LLAMA_CPP)
    architectures: dict[str, Architecture] = {}
    if engine == LLAMA_CPP:
        architectures = llama_cpp.check_llama_cpp(models, request.out)
        port = llama_cpp.PORT
    else:
        vllm_command.check_vllm(models)
        port = vllm_command.PORT
    folder = ServingFolder(request.out)
    for adapter in models.adapters:
        adapter.require_finite()
    template = _template_of(models, request.think)
    plan = ServingPlan(
        engine, models, folder, template, request.think, request.host, request.port or port, architectures
    )
    plan.check_files()
    return plan


def _template_of(models: ServedModels, think: bool) -> str:
    """The saved chat template for a server. A `ContentError` begins with the template's file."""
    special = models.tokenizer.special
    if models.template is None:
        return serving_template(None, special, think)
    try:
        return serving_template(models.template.text, special, think)
    except ContentError as error:
        raise ContentError(f"{models.template.file}: {error}") from error


def _dataset_dir(settings: Settings) -> str:
    """The folder of the registry that a training read."""
    return str(settings.get("dataset_dir") or LLAMAFACTORY_FOLDER)


def _held_out(settings: Settings) -> list[str]:
    """Datasets to compare a server on: a training's evaluation rows where they are registered, or its own."""
    try:
        registered = read_registry(Path(_dataset_dir(settings)))
    except ContentError:  # a broken registry registers nothing
        registered = {}
    evaluation = [name for name in names_in(settings.get("eval_dataset")) if name in registered]
    if evaluation:
        return evaluation
    return [eval_split(name, registered) or name for name in names_in(settings.get("dataset"))]


def missing_engine(plan: ServingPlan) -> str:
    """Why the engine cannot be started here, and the command that installs it; "" if it can."""
    program = plan.command[0]
    if shutil.which(program):
        return ""
    if plan.engine == VLLM:
        setup = after_vllm_setup("tuneyard adapter serve …")
        return f"{program} is not on PATH; run the command above where it is, or set it up here: {setup}"
    if find_spec("xllamacpp") is None:
        return f"{program} is not on PATH, and {missing('xllamacpp')}"
    return ""


def after_engine_setup(plan: ServingPlan, command: str) -> str:
    """Next command to type, preceded by the set-up of an engine that is not here."""
    if not missing_engine(plan):
        return command
    if plan.engine == VLLM:
        return after_vllm_setup(command)
    return f"{install_command('xllamacpp')} && {command}"


def start(plan: ServingPlan, started: Callable[[], None]) -> None:
    """Start the server, which ends at Ctrl-C. `started` prints its address.

    `RequestError` if the port is taken, or if no engine is installed here.
    """
    check_port(plan.host, plan.port)
    absence = missing_engine(plan)
    if absence:
        raise RequestError(absence)
    program = plan.command[0]
    if shutil.which(program):
        note(f"{program} starts now: the address answers once it has loaded the model")
        started()
        os.execvp(program, plan.command)
    else:
        llama_cpp.run_xllamacpp(plan.llama_server, started)


def check_port(host: str, port: int) -> None:
    """`RequestError` if another process listens at the address, or if the host is not this machine."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except (OSError, TypeError) as error:  # TypeError: a host name that cannot be encoded
            reason, fix = str(error), "name an address of this machine with --host"
            if isinstance(error, OSError):
                reason = error.strerror or reason
                if error.errno in (errno.EADDRINUSE, errno.EACCES):
                    fix = "choose another port with --port"
            raise RequestError(f"--host {show_value(host)} --port {port}: {reason}; {fix}") from error


def command_text(words: Sequence[str]) -> str:
    """A command in lines of at most `LINE` characters, to copy; a flag stays with its values."""
    groups: list[str] = []
    for word in map(shlex.quote, words):
        if groups and not word.startswith("--"):
            groups[-1] += f" {word}"
        else:
            groups.append(word)
    lines = [groups[0]]
    for group in groups[1:]:
        if len(lines[-1]) + len(group) > LINE:
            lines.append(f"    {group}")
        else:
            lines[-1] += f" {group}"
    return " \\\n".join(lines)


def echo_plan(plan: ServingPlan) -> None:
    """Print notes, facts and the command."""
    for text in plan.models.notes:
        note(text)
    click.echo("\n".join(plan.lines()))
