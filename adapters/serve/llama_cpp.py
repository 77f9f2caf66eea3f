"""A llama.cpp server: the words of `llama-server`, and the same settings for the package xllamacpp."""

import functools
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuneyard.adapters.adapter import name_of
from tuneyard.adapters.export.architecture import Architecture
from tuneyard.adapters.export.gguf_files import check_lora, plan_gguf, write_gguf, write_lora
from tuneyard.adapters.kinds.lora import LoraAdapter
from tuneyard.adapters.output import require_space
from tuneyard.adapters.serve.files import Inputs, ServingFolder, identities
from tuneyard.adapters.serve.training import ServedModels
from tuneyard.adapters.store import note
from tuneyard.core.errors import ContentError, RequestError, need
from tuneyard.core.weights.base_models import open_base

PROGRAM = "llama-server"
PORT = 8080
SLOTS = 4  # requests that the server computes at the same time, each with the whole context
TYPE = "f16"  # quantised weights flip answers (docs/export.md)
END_NAMES = ("eos", "eot", "eom")  # a GGUF has these places for end tokens


@dataclass(frozen=True, slots=True)
class LlamaServer:
    """Settings of a llama.cpp server. `context` is that of one request, None for the model's own.

    One adapter is applied to every request. Of several, each request chooses one by its `lora` field.
    """

    model: Path
    alias: str
    adapters: Sequence[Path]
    template: Path
    context: int | None
    host: str
    port: int

    @property
    def all_contexts(self) -> int:
        """Tokens of all slots together; llama.cpp reads 0 as the model's own limit."""
        return SLOTS * (self.context or 0)

    def words(self) -> list[str]:
        """The command line. The flags are those of llama.cpp's tools/server/README.md (October 2026)."""
        words = [PROGRAM, "--model", str(self.model), "--alias", self.alias]
        for adapter in self.adapters:
            if len(self.adapters) == 1:
                words += ["--lora", str(adapter)]
            else:  # with --lora, or --lora-init-without-apply, a request would get the sum of all
                words += ["--lora-scaled", f"{adapter}:0"]
        words += ["--ctx-size", str(self.all_contexts), "--parallel", str(SLOTS), "--no-kv-unified"]
        words += ["--jinja", "--chat-template-file", str(self.template), "--reasoning-format", "none"]
        words += ["--temp", "0", "--top-k", "0", "--top-p", "1", "--min-p", "0", "--repeat-penalty", "1"]
        return [*words, "--host", self.host, "--port", str(self.port)]

    def params(self) -> Any:
        """The same settings for xllamacpp, as its `CommonParams`."""
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path = str(self.model)
        params.model_alias = {self.alias}
        scale = 1.0 if len(self.adapters) == 1 else 0.0
        params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(path), scale) for path in self.adapters]
        params.n_ctx = self.all_contexts
        params.n_parallel = SLOTS
        params.kv_unified = False
        params.use_jinja = True
        params.chat_template = self.template.read_text(encoding="utf-8")
        params.reasoning_format = xllamacpp.common_reasoning_format.COMMON_REASONING_FORMAT_NONE
        params.sampling.temp = 0.0
        params.sampling.top_k = 0
        params.sampling.top_p = 1.0
        params.sampling.min_p = 0.0
        params.sampling.penalty_repeat = 1.0
        params.hostnames = [self.host]
        params.port = self.port
        params.verbosity = 1  # errors
        return params


def check_llama_cpp(models: ServedModels, folder: Path) -> dict[str, Architecture]:
    """Architecture of each adapter's GGUF by name. `ContentError` for a model that llama.cpp cannot serve."""
    need("gguf")
    plan_gguf(open_base(models.folder), TYPE, models.tokenizer.folder)
    for adapter in models.adapters:
        path = folder / adapter_file(adapter)
        if set(",:") & set(str(path)):
            raise RequestError(f"{path}: llama-server splits the names of adapters at , and : (rename it)")
    return {adapter.name: check_lora(adapter, models.folder) for adapter in models.adapters}


def base_file(models: ServedModels) -> str:
    """Name of the base's GGUF in the serving folder."""
    return f"{name_of(models.folder)}-{TYPE}.gguf"


def adapter_file(adapter: LoraAdapter) -> str:
    """Name of an adapter's GGUF in the serving folder; the server lists the adapter by it."""
    return f"{adapter.name}.gguf"


def base_inputs(models: ServedModels, ends: Sequence[int]) -> Inputs:
    """Files and settings that the base's GGUF depends on."""
    base = open_base(models.folder)
    files = [models.folder / "config.json", *(shard.path for shard in base.shards.values())]
    for name in ("tokenizer.json", "tokenizer_config.json"):
        file = models.tokenizer.folder / name
        if file.is_file():
            files.append(file)
    return {"files": identities(files), "ends": list(ends), "type": TYPE}


def write_base(models: ServedModels, ends: Sequence[int]) -> Callable[[Path], None]:
    """Writer of the base's GGUF, whose end tokens are those of the training."""
    from tqdm import tqdm

    def write(path: Path) -> None:
        plan = plan_gguf(open_base(models.folder), TYPE, models.tokenizer.folder)
        size = sum(entry.bytes for entry in plan.entries)
        require_space(path, size)
        if len(ends) > len(END_NAMES):
            rest = ", ".join(map(str, ends[len(END_NAMES) :]))
            note(f"a GGUF has places for {len(END_NAMES)} end tokens: left out are the ids {rest}")
        by_name = dict(zip(END_NAMES, ends, strict=False))
        with tqdm(total=size, desc=path.name, unit="B", unit_scale=True, delay=2) as bar:
            write_gguf(plan, path, {"name": name_of(models.folder)}, bar.update, by_name)

    return write


def write_adapters(
    folder: ServingFolder, models: ServedModels, architectures: dict[str, Architecture]
) -> None:
    """Write each adapter's GGUF unless it is there."""
    for adapter in models.adapters:
        write = functools.partial(write_lora, adapter, architectures[adapter.name])
        folder.write(adapter_file(adapter), adapter_inputs(adapter), write)


def adapter_inputs(adapter: LoraAdapter) -> Inputs:
    """Files that an adapter's GGUF depends on."""
    return {"files": identities([adapter.config.path, *adapter.files])}


def run_xllamacpp(server: LlamaServer, started: Callable[[], None]) -> None:
    """Serve by the package xllamacpp until Ctrl-C. `started` is called when the server answers."""
    from xllamacpp import Server

    try:
        running = Server(server.params())
    except (RuntimeError, ValueError) as error:
        raise ContentError(f"{server.model}: llama.cpp cannot serve it: {error}") from error
    try:
        started()
        while True:
            signal.pause()
    except KeyboardInterrupt:  # the way to end a server
        del running
