"""`tuneyard adapter serve`: check adapters and engine, write the files of the server, and start it."""

import errno
import os
import shlex
import shutil
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tuneyard.adapters.export.architecture import Architecture
from tuneyard.adapters.export.gguf_files import write_lora
from tuneyard.adapters.model.adapter import name_of
from tuneyard.adapters.model.lora import LoraAdapter
from tuneyard.adapters.model.store import note
from tuneyard.adapters.serve import llama_cpp, vllm_command
from tuneyard.adapters.serve.files import place, write_once
from tuneyard.adapters.serve.template import (
    has_llamafactory,
    serving_template,
    trained_template,
    trained_with,
)
from tuneyard.adapters.serve.training import ServedModels, Settings, open_served
from tuneyard.adapters.write.output import check_outside
from tuneyard.core.datasets import DEFAULT_FOLDER, LLAMAFACTORY_FOLDER, read_registry, reporting_splits
from tuneyard.core.errors import ContentError, RequestError, show_value
from tuneyard.core.execution.state import CURRENT, NEW, UNFINISHED, State
from tuneyard.core.files import read_object, write_json, write_text
from tuneyard.core.files.bounded_reading import read_text
from tuneyard.core.installation.checkout import SAFE_PATH
from tuneyard.core.installation.packages import after_vllm_setup
from tuneyard.core.language.message import _, joined
from tuneyard.core.language.messages import warn
from tuneyard.core.llamafactory.prompt.trained_files import ends_with
from tuneyard.core.training.training_run import names_in

VLLM, LLAMA_CPP = "vllm", "llama.cpp"
CHAT_TEMPLATE, GENERATION = "chat_template.jinja", "generation_config.json"
RELEASES = "https://github.com/ggml-org/llama.cpp/releases"


@dataclass(frozen=True, slots=True)
class ServeRequest:
    """A `serve` command: adapters of one base, or one full model, by their references.

    Without an `engine` it is vLLM if that is on PATH, otherwise llama.cpp. Without a `port` it is the
    engine's own. `out` is the folder of the files that the server loads.
    """

    references: Sequence[str]
    engine: str | None = None
    base: Path | None = None
    out: Path = Path("saves/serving")
    host: str = "127.0.0.1"
    port: int | None = None
    think: bool = False
    same_base: bool = False


@dataclass(frozen=True, slots=True)
class ServingPlan:
    """Checked models, and the command that serves them. `architectures` are those of adapters by name.

    `template` is the saved chat template without options, before it is compared with those of `trainings`.
    """

    engine: str
    models: ServedModels
    out: Path
    template: str
    trainings: Sequence[tuple[str, str | None]]
    think: bool
    host: str
    port: int
    architectures: dict[str, Architecture]

    @property
    def prompt_folder(self) -> Path:
        """Folder of the chat template, and of the generation config, which has the end tokens."""
        settings = self.template, self.trainings, self.think, self.models.trained.ends
        return place(self.out, self.name, [], *settings)

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
    def base_gguf(self) -> Path:
        """The file of the base for llama.cpp."""
        return llama_cpp.base_file(self.models, self.out, self.trainings)

    @property
    def command(self) -> list[str]:
        """The words of the engine's own command, with the address."""
        folder = self.prompt_folder
        if self.engine == LLAMA_CPP:
            adapters = [llama_cpp.adapter_file(adapter, self.out) for adapter in self.models.adapters]
            words = llama_cpp.words(self.models, self.base_gguf, adapters, folder / CHAT_TEMPLATE)
        else:
            words = vllm_command.vllm_words(self.models, folder / CHAT_TEMPLATE, folder)
        return [*words, "--host", self.host, "--port", str(self.port)]

    def lines(self) -> list[str]:
        """The lines that name the models, the settings and the command of the server."""
        models = self.models
        adapters = _("no adapters")
        if models.adapters:
            adapters = joined(adapter.name for adapter in models.adapters)
        context = _("the model's own")
        if models.context is not None:
            context = _("{number:,} tokens", number=models.context)
        if models.length is not None:
            limit = _("no limit of the base")
            if models.limit:
                limit = _("the base's limit is {limit:,}", limit=models.limit)
            context = _(
                "{context} (cutoff_len {length:,} and {new_tokens:,} new ones; {limit})",
                context=context,
                length=models.length,
                new_tokens=models.new_tokens,
                limit=limit,
            )
        lines = [
            _("base      {name}", name=models.name),
            _("adapters  {names}", names=adapters),
            _("context   {context}", context=context),
        ]
        if self.engine == LLAMA_CPP and len(models.adapters) > 1:
            ids = [f"id {number}: {adapter.name}" for number, adapter in enumerate(models.adapters)]
            lines.append(
                _(
                    'choice    by the request\'s "lora": [{{"id": 0, "scale": 1}}], without it '
                    "the base answers ({ids})",
                    ids=joined(ids),
                )
            )
        elif self.engine == LLAMA_CPP and models.adapters:
            lines.append(_("choice    the adapter answers every request"))
        elif models.adapters:
            lines.append(
                _("choice    by the request's model: {name}, {adapters}", name=models.name, adapters=adapters)
            )
        return [*lines, _("files     {path}", path=self.out), "", shlex.join(self.command)]

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

    def folders(self) -> list[Path]:
        """The folders of the files that the server loads."""
        folders = [self.prompt_folder]
        if self.engine == LLAMA_CPP:
            folders.append(self.base_gguf.parent)
            folders += [llama_cpp.adapter_file(adapter, self.out).parent for adapter in self.models.adapters]
        return folders

    def write(self) -> None:
        """Write the files of the server that are not there."""
        if self.models.trainings and not has_llamafactory():
            note(_("LLaMA-Factory is not installed: the chat template was not compared with the training's"))
        folder = self.prompt_folder
        write_once(folder, self._write_prompt)
        if read_text(folder / CHAT_TEMPLATE) != self.template:
            saved = _("no chat template is saved, and joined texts have")
            template = self.models.trained.template
            if template is not None:
                saved = _("{file}: this chat template gives", file=template.file)
            warn(
                _(
                    "{saved} other token ids than the training had; served is the template of the "
                    "training, {folder}",
                    saved=saved,
                    folder=folder / CHAT_TEMPLATE,
                )
            )
        if self.engine == LLAMA_CPP:
            generation: dict[str, Any] = read_object(folder / GENERATION)
            ends = generation["eos_token_id"]
            base = self.base_gguf
            write_once(base.parent, lambda new: llama_cpp.write_base(self.models, ends, new / base.name))
            for adapter in self.models.adapters:
                path = llama_cpp.adapter_file(adapter, self.out)
                write_once(path.parent, partial(self._write_adapter, adapter, path.name))

    def _write_prompt(self, folder: Path) -> None:
        """Write the chat template of the training, and its end tokens."""
        texts = {self.template}
        if self.trainings:
            texts.clear()
        for settings in self.trainings:
            texts.add(trained_template(self.models.trained.folder, settings, self.template, self.think))
        if len(texts) > 1:
            raise RequestError(_("the adapters were trained with different templates: serve each on its own"))
        text = texts.pop()
        ends = ends_with(text, self.models.trained)
        write_text(folder / CHAT_TEMPLATE, text)
        write_json(folder / GENERATION, {"eos_token_id": ends})

    def _write_adapter(self, adapter: LoraAdapter, name: str, folder: Path) -> None:
        write_lora(adapter, self.architectures[adapter.name], folder / name)


def state(request: ServeRequest) -> State:
    """Whether the files of a server are written. Their folders are named after a hash of all their inputs."""
    plan = plan_serving(request)
    are_there = [folder.is_dir() for folder in plan.folders()]
    if all(are_there):
        return CURRENT
    return UNFINISHED if any(are_there) else NEW


def plan_serving(request: ServeRequest) -> ServingPlan:
    """Check adapters, base and engine. Errors are those of the parts."""
    host, port, out, think = request.host, request.port, request.out, request.think
    engine = request.engine
    if host.count(":") == 1:
        raise RequestError(_("--host {host}: an address with a port: give the port with --port", host=host))
    if engine is None:
        engine = VLLM if shutil.which(vllm_command.PROGRAM) else LLAMA_CPP
    models = open_served(
        request.references, request.base, weights=engine == LLAMA_CPP, same_base=request.same_base
    )
    architectures: dict[str, Architecture] = {}
    if engine == LLAMA_CPP:
        architectures = llama_cpp.check_llama_cpp(models, out)
        port = port or llama_cpp.PORT
    else:
        vllm_command.check_vllm(models)
        port = port or vllm_command.PORT
    check_outside(out, [models.folder, *(adapter.folder for adapter in models.adapters)])
    for adapter in models.adapters:
        for name in adapter.weights.tensors:
            adapter.weights.read(name)  # `ContentError` for NaN and infinity, as in `merge`
    template = _template_of(models, think)
    trainings = []
    if has_llamafactory():
        for settings in models.trainings:
            trained = trained_with(settings)
            if settings.get("stage") != "pt" and trained not in trainings:
                trainings.append(trained)
    return ServingPlan(engine, models, out, template, trainings, think, host, port, architectures)


def _template_of(models: ServedModels, think: bool) -> str:
    """The saved chat template for a server. A `ContentError` begins with the template's file."""
    trained = models.trained
    if trained.template is None:
        return serving_template(None, trained.special, think)
    try:
        return serving_template(trained.template.text, trained.special, think)
    except ContentError as error:
        raise ContentError(_("{path}: {error}", path=trained.template.file, error=error)) from error


def _dataset_dir(settings: Settings) -> str:
    """The folder of the registry that a training read."""
    return str(settings.get("dataset_dir") or LLAMAFACTORY_FOLDER)


def _held_out(settings: Settings) -> list[str]:
    """Datasets to compare a server on: a training's held-out rows where they are registered, or its own."""
    try:
        registered = read_registry(Path(_dataset_dir(settings)))
    except ContentError:  # a broken registry registers nothing
        registered = {}
    names = names_in(settings.get("dataset"))
    evaluated = [name for name in names_in(settings.get("eval_dataset")) if name in registered]
    if evaluated:
        return reporting_splits(names, evaluated, registered)
    held_out = []
    for name in names:
        held_out += reporting_splits([name], [], registered) or [name]
    return held_out


def missing_engine(plan: ServingPlan) -> str:
    """Why the engine cannot be started here, and the command that installs it; "" if it can."""
    program = plan.command[0]
    if shutil.which(program):
        return ""
    fix = _("install {name}: {address}", name=LLAMA_CPP, address=RELEASES)
    if plan.engine == VLLM:
        fix = _("set it up here: {command}", command=after_vllm_setup("tuneyard adapter serve …"))
    return _("{program} is not on PATH; add its folder to PATH, or {fix}", program=program, fix=fix)


def after_engine_setup(plan: ServingPlan, command: str) -> str:
    """Next command to type, preceded by the set-up of an engine that is not here."""
    if plan.engine == VLLM and missing_engine(plan):
        return after_vllm_setup(command)
    return command


def require_startable(plan: ServingPlan) -> None:
    """`RequestError` if the port is taken, or if no engine is installed here."""
    check_port(plan.host, plan.port)
    absence = missing_engine(plan)
    if absence:
        raise RequestError(absence)


def start(plan: ServingPlan, started: Callable[[], None]) -> None:
    """Start the server, which ends at Ctrl-C. `started` prints its address."""
    program = plan.command[0]
    note(_("{program} starts now: the address answers once it has loaded the model", program=program))
    started()
    os.execvpe(program, plan.command, {**os.environ, SAFE_PATH: "1"})  # vLLM starts Python again


def check_port(host: str, port: int) -> None:
    """`RequestError` if another process listens at the address, or if the host is not this machine."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except (OSError, TypeError) as error:  # TypeError: a host name that cannot be encoded
            reason = str(error)
            fix = _("name an address of this machine with --host")
            if isinstance(error, OSError):
                reason = error.strerror or reason
                if error.errno in (errno.EADDRINUSE, errno.EACCES):
                    fix = _("choose another port with --port")
            raise RequestError(
                _(
                    "--host {host} --port {port}: {reason}; {hint}",
                    host=show_value(host),
                    port=port,
                    reason=reason,
                    hint=fix,
                )
            ) from error
