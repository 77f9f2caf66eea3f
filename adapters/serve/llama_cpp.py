"""A llama.cpp server: the words of `llama-server`, and the GGUF files that it loads."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tuneyard.adapters.export.architecture import Architecture
from tuneyard.adapters.export.gguf_files import check_lora, further_ends_notes, plan_gguf, write_gguf
from tuneyard.adapters.model.adapter import name_of
from tuneyard.adapters.model.lora import LoraAdapter
from tuneyard.adapters.model.store import note
from tuneyard.adapters.serve.files import place
from tuneyard.adapters.serve.training import ServedModels
from tuneyard.adapters.write.output import require_space
from tuneyard.core.errors import RequestError, need
from tuneyard.core.language.message import _
from tuneyard.core.weights.base_models import open_base

PROGRAM = "llama-server"
PORT = 8080
SLOTS = 4  # requests that the server computes at the same time, each with the whole context
TYPE = "f16"  # quantised weights flip answers (docs/export.md)


def words(models: ServedModels, base: Path, adapters: Sequence[Path], template: Path) -> list[str]:
    """The command line. The flags are those of llama.cpp's tools/server/README.md (October 2026).

    One adapter is applied to every request. Of several, each request chooses one by its `lora` field.
    """
    # The context is that of all slots together; llama.cpp reads 0 as the model's own limit.
    words = [PROGRAM, "--model", str(base), "--alias", name_of(models.folder)]
    for adapter in adapters:
        if len(adapters) == 1:
            words += ["--lora", str(adapter)]
        else:  # with --lora, or --lora-init-without-apply, a request would get the sum of all
            words += ["--lora-scaled", f"{adapter}:0"]
    words += ["--ctx-size", str(SLOTS * (models.context or 0)), "--parallel", str(SLOTS), "--no-kv-unified"]
    words += ["--jinja", "--chat-template-file", str(template), "--reasoning-format", "none"]
    return [*words, "--temp", "0", "--top-k", "0", "--top-p", "1", "--min-p", "0", "--repeat-penalty", "1"]


def check_llama_cpp(models: ServedModels, out: Path) -> dict[str, Architecture]:
    """Architecture of each adapter's GGUF by name. `ContentError` for a model that llama.cpp cannot serve."""
    need("gguf")
    plan_gguf(open_base(models.folder), TYPE, models.trained)
    for adapter in models.adapters:
        file = out / f"{adapter.name}.gguf"
        if set(",:") & set(str(file)):
            raise RequestError(
                _("{file}: llama-server splits the names of adapters at , and : (rename it)", file=file)
            )
    return {adapter.name: check_lora(adapter, models.folder) for adapter in models.adapters}


def base_file(models: ServedModels, out: Path, *settings: object) -> Path:
    """The base's GGUF, by its files and by the settings that choose its end tokens."""
    base = open_base(models.folder)
    files = [models.folder / "config.json", *(shard.path for shard in base.shards.values())]
    for name in ("tokenizer.json", "tokenizer_config.json"):
        file = models.trained.folder / name
        if file.is_file():
            files.append(file)
    name = f"{name_of(models.folder)}-{TYPE}"
    return place(out, name, files, models.trained.ends, *settings) / f"{name}.gguf"


def adapter_file(adapter: LoraAdapter, out: Path) -> Path:
    """An adapter's GGUF; the server lists the adapter by its file name."""
    return place(out, adapter.name, [adapter.config.path, *adapter.files]) / f"{adapter.name}.gguf"


def write_base(models: ServedModels, ends: Sequence[int], path: Path) -> None:
    """Write the base's GGUF, whose end tokens are those of the training."""
    from tqdm import tqdm

    plan = plan_gguf(open_base(models.folder), TYPE, replace(models.trained, ends=tuple(ends)))
    require_space(path, plan.bytes)
    for text in further_ends_notes(plan):
        note(text)
    with tqdm(total=plan.bytes, desc=path.name, unit="B", unit_scale=True, delay=2) as bar:
        write_gguf(plan, {"name": name_of(models.folder)}, path, bar.update, for_chats=True)
