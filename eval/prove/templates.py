"""Recognise the template by which a server made a prompt."""

from collections.abc import Iterator

from tuneyard.core.errors import ContentError
from tuneyard.core.prompt import Encode, chat_encoder
from tuneyard.eval.backends.scorers import Messages
from tuneyard.eval.prove.evidence import Evidence
from tuneyard.eval.prove.findings import decode, split_thought
from tuneyard.eval.prove.proof import Ids


def other_templates(evidence: Evidence) -> Iterator[tuple[str, Encode]]:
    """Ways in which a server makes prompts if it is not given training's chat template."""
    tokenizer = evidence.tokenizer
    if isinstance(tokenizer.chat_template, str):
        yield "the base's own chat template", chat_encoder(tokenizer, tokenizer.chat_template)

    def as_chatml(messages: Messages) -> list[int]:
        turns = [f"<|im_start|>{turn['role']}\n{turn['content']}<|im_end|>\n" for turn in messages]
        text = "".join(turns) + "<|im_start|>assistant\n"
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    yield "llama.cpp's default template, ChatML", as_chatml
    if evidence.facts.chat_template:
        template = evidence.facts.chat_template
        yield "the chat template that it reports, another than training's", chat_encoder(tokenizer, template)


def wrote_prompt(evidence: Evidence, encode: Encode, row: int) -> bool:
    """True if the server's prompt of a row is this way's and not training's. BOS and a thought that opens the
    answer are left aside."""
    try:
        ids = encode(evidence.messages[row])
    except ContentError:  # the template refuses the messages
        return False
    served = without_ends(evidence, (evidence.served_ids or {})[row])
    return served == without_ends(evidence, ids) != without_ends(evidence, evidence.expected_ids[row])


def without_ends(evidence: Evidence, ids: Ids) -> str:
    """A prompt's text without BOS at its beginning and a thought at its end."""
    bos = str(evidence.tokenizer.bos_token or "")
    text, _ = split_thought(decode(evidence, ids))
    while bos and text.startswith(bos):
        text = text.removeprefix(bos)
    return text
