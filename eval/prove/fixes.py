"""Options of servers and lines of a Modelfile, for the sentences of causes."""

import shlex

from tuneyard.core.prompt import saved_chat_template
from tuneyard.eval.backends.served import LLAMA_CPP, OLLAMA, VLLM
from tuneyard.eval.prove.evidence import Evidence
from tuneyard.eval.prove.findings import Findings

NEW_MODELFILE = "the TEMPLATE and SYSTEM that `tuneyard adapter export FUSED --to ollama` writes"


def option_of(findings: Findings, llama_cpp: str, vllm: str, modelfile: str = "") -> str:
    """The option of the server's engine, or of both servers if the engine is none of them.

    `modelfile` is a Modelfile's line. Without it the cause cannot lie in a Modelfile.
    """
    engine = findings.evidence.facts.engine
    if engine == OLLAMA:
        return modelfile
    if engine == LLAMA_CPP:
        return llama_cpp
    if engine == VLLM:
        return vllm
    return f"{llama_cpp} (llama.cpp), {vllm} (vLLM)"


def thinking_option(findings: Findings, value: str) -> str:
    """The option that switches thinking on or off for templates that know `enable_thinking`."""
    settings = f"'{{\"enable_thinking\": {value}}}'"
    return option_of(
        findings,
        f"--chat-template-kwargs {settings}",
        f"--default-chat-template-kwargs {settings}",
        NEW_MODELFILE,
    )


def template_option(findings: Findings) -> str:
    """The option that gives a server training's chat template."""
    file = "FILE with training's chat template"
    for part in findings.evidence.parts[:1]:
        folder = part.adapter.folder
        if saved_chat_template(folder) is not None:
            file = shlex.quote(str(folder / "chat_template.jinja"))
    return option_of(
        findings, f"--jinja --chat-template-file {file}", f"--chat-template {file}", NEW_MODELFILE
    )


def setting(findings: Findings, name: str) -> float | None:
    """A number of the server's settings for sampling, None if it reports none."""
    value = findings.evidence.facts.sampling.get(name)
    return float(value) if isinstance(value, (int, float)) else None


def base_of(evidence: Evidence) -> str:
    """The base that the adapter's config names."""
    return evidence.parts[0].adapter.lora.base or "BASE"
