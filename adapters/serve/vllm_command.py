"""The command line of a vLLM server, which loads base and adapters from their own folders.

vLLM 0.26's own parser takes it (vllm/entrypoints/openai/cli_args.py, vllm/engine/arg_utils.py). Later
versions have the same flags in vllm/entrypoints/launchers/cli_args.py.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tuneyard.adapters.model.lora import NOT_IN_VLLM, VLLM_RANKS, LoraAdapter, vllm_rank
from tuneyard.adapters.serve.training import ServedModels
from tuneyard.core.errors import ContentError
from tuneyard.core.language.message import _, typed

PROGRAM = "vllm"
PORT = 8000


def check_vllm(models: ServedModels) -> None:
    """`ContentError` for an adapter that vLLM refuses, or computes otherwise than PEFT."""
    for adapter in models.adapters:
        fuse = typed(adapter.fuse_words(models.name))
        merge = typed(
            ["tuneyard", "adapter", "merge", f"{adapter.word}=1", "--out", f"saves/{adapter.name}-plain"]
        )
        if adapter.full_tensors:
            raise ContentError(
                _("{folder}: {reason}: {command}", folder=adapter.folder, reason=NOT_IN_VLLM, command=fuse)
            )
        if vllm_rank(adapter.largest_rank) is None:
            raise ContentError(
                _(
                    "{folder}: rank {rank} is above vLLM's largest, {largest}: {command}",
                    folder=adapter.folder,
                    rank=adapter.largest_rank,
                    largest=VLLM_RANKS[-1],
                    command=fuse,
                )
            )
        without_patterns = replace(adapter.config, ranks={}, alphas={})
        for path in adapter.modules:
            scale, scale_of_vllm = adapter.config.scale_of(path), without_patterns.scale_of(path)
            if scale != scale_of_vllm:
                raise ContentError(
                    _(
                        "{folder}: {path} has a scale of {scale:g} by its pattern; vLLM reads no patterns "
                        "and would take {other:g}. Write it as a plain adapter: {command}",
                        folder=adapter.folder,
                        path=path,
                        scale=scale,
                        other=scale_of_vllm,
                        command=merge,
                    )
                )


def vllm_words(models: ServedModels, template: Path, generation_config: Path) -> list[str]:
    """The command line. `generation_config` is a folder; its file has the end tokens and no sampling."""
    words = [PROGRAM, "serve", models.name]
    if models.trained.folder != models.folder:
        words += ["--tokenizer", str(models.trained.folder)]
    words += ["--chat-template", str(template), "--generation-config", str(generation_config)]
    words += ["--override-generation-config", json.dumps({"temperature": 0})]
    if models.context is not None:
        words += ["--max-model-len", str(models.context)]
    if models.adapters:
        rank = vllm_rank(max(adapter.largest_rank for adapter in models.adapters))
        words += ["--enable-lora", "--max-loras", str(len(models.adapters)), "--max-lora-rank", str(rank)]
        words += ["--lora-modules", *_lora_modules(models.adapters)]
    return words


def _lora_modules(adapters: Sequence[LoraAdapter]) -> list[str]:
    """Adapters by name, as `name=path`; as JSON if that has another `=`, a comma, or begins with a dash."""
    modules = []
    for adapter in adapters:
        name, path = adapter.name, str(adapter.folder)
        if set("=,") & set(name + path) or name.startswith("-"):
            modules.append(json.dumps({"name": name, "path": path}, ensure_ascii=False))
        else:
            modules.append(f"{name}={path}")
    return modules
