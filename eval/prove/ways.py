"""The ways of making prompts from training to serving."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from tuneyard.core.prompt import Encode, Message, chat_encoder, llamafactory_encoder, saved_chat_template
from tuneyard.eval.backends.load import find_model, load_gguf_tokenizer
from tuneyard.eval.backends.modelfile import ServedModelfile
from tuneyard.eval.prove.proof import ParityInputs
from tuneyard.eval.scoring.candidates import Candidate

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def prompt_ways(
    inputs: ParityInputs,
    candidate: Candidate,
    tokenizer: "PreTrainedTokenizerBase",
    served: ServedModelfile | None,
) -> Iterator[tuple[str, Encode]]:
    """List every way of making prompts from training to serving, training's first."""
    if inputs.template is not None:  # "": the recipe names none
        way = f"LLaMA-Factory template {inputs.template}"
        if not inputs.template:
            way = "LLaMA-Factory's reading of the base's chat template (the recipe names no template)"
        yield way, llamafactory_encoder(tokenizer, inputs.template)
    yield candidate.prompting.source, candidate.prompting.encode
    if inputs.fused:
        from transformers import AutoTokenizer

        folder = find_model(str(inputs.fused))
        fused_tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        encode = chat_encoder(fused_tokenizer, saved_chat_template(inputs.fused))
        yield f"chat template and tokenizer of {inputs.fused}", encode
    if inputs.gguf:
        gguf_tokenizer = load_gguf_tokenizer(inputs.gguf)
        template = gguf_tokenizer.chat_template
        if not isinstance(template, str):
            template = None
        yield f"chat template and tokenizer in {inputs.gguf}", chat_encoder(gguf_tokenizer, template)
    if served:

        def as_ollama(messages: list[Message]) -> list[int]:
            """Encode Ollama's prompt; the tokenizer may add its beginning-of-text token."""
            return list(tokenizer(served.render(messages))["input_ids"])

        yield f"TEMPLATE of {inputs.modelfile}", as_ollama
