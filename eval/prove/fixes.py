"""Options of servers and ranks that a server loads, for the sentences of causes."""

import re
import shlex
from collections.abc import Sequence

from tuneyard.adapters.vllm import DEFAULT_RANK, RANKS, max_rank
from tuneyard.adapters.weighted import WeightedAdapter
from tuneyard.core.prompt import saved_chat_template
from tuneyard.eval.backends.served import LLAMA_CPP, VLLM
from tuneyard.eval.prove.evidence import Evidence

RANK_REFUSED = re.compile(r"LoRA rank (\d+) is greater than max_lora_rank (\d+)")
NOT_LOADED = re.compile(r"LoRA adapter .* was found but could not be loaded")


def option_of(evidence: Evidence, llama_cpp: str, vllm: str) -> str:
    """The option of the server's engine, or of both servers if the engine is none of them."""
    engine = evidence.facts.engine
    if engine == LLAMA_CPP:
        return llama_cpp
    if engine == VLLM:
        return vllm
    return f"{llama_cpp} (llama.cpp), {vllm} (vLLM)"


def thinking_option(evidence: Evidence, value: str) -> str:
    """The option that switches thinking on or off for templates that know `enable_thinking`."""
    settings = f"'{{\"enable_thinking\": {value}}}'"
    return option_of(
        evidence, f"--chat-template-kwargs {settings}", f"--default-chat-template-kwargs {settings}"
    )


def template_option(evidence: Evidence) -> str:
    """The option that gives a server training's chat template."""
    file = "FILE with training's chat template"
    for part in evidence.parts[:1]:
        folder = part.adapter.folder
        if saved_chat_template(folder) is not None:
            file = shlex.quote(str(folder / "chat_template.jinja"))
    return option_of(evidence, f"--jinja --chat-template-file {file}", f"--chat-template {file}")


def above_max_lora_rank(refusal: str, parts: Sequence[WeightedAdapter]) -> str:
    """Sentence about a refusal by vLLM because of a rank above --max-lora-rank, "" for other refusals.

    A resolver's refusal names no rank. It counts if the rank of the adapter here is above the default.
    """
    ranks = [part.adapter.config.rank for part in parts]
    ranks += [rank for part in parts for rank in part.adapter.config.ranks.values()]
    rank = max(ranks, default=0)
    match = RANK_REFUSED.search(refusal)
    if match:
        rank = int(match[1])
        problem = f"The adapter has rank {rank}, and the server loads ranks up to {match[2]}"
    elif NOT_LOADED.search(refusal) and rank > DEFAULT_RANK:
        problem = (
            f"The server could not load the adapter and names no reason; its rank {rank} is above vLLM's "
            f"default limit, {DEFAULT_RANK}"
        )
    else:
        return ""
    enough = max_rank(rank)
    fix = f"start it with --max-lora-rank {enough}"
    if enough is None and parts:
        fuse = parts[0].adapter.fuse_command(base_of(parts))
        fix = f"vLLM's largest is {RANKS[-1]}: serve the fused model ({fuse})"
    return f"{problem}: {fix}."


def base_of(parts: Sequence[WeightedAdapter]) -> str:
    """The base that the adapter's config names."""
    return parts[0].adapter.config.base or "BASE"
