"""W205: text that a tokenizer may read as the end of a turn."""

import re

from tuneyard.compiler.lint import RowTexts, first_match, text_lint
from tuneyard.core.errors.problem_codes import ProblemCode
from tuneyard.core.language.message import _, marked

TEMPLATE_TOKEN = ProblemCode(
    "W205",
    _("a token of a chat template inside the text"),
    _("Check the text, or take the token out."),
    _("The tokenizer may read it as the end of a turn."),
    template=marked("a token of a chat template inside the text: {text}"),
)
# The tokens of LLaMA-Factory's templates in this form. Another `<|…|>` is a text's own, as a list's mark.
_SPECIAL = (
    "system|user|assistant|observation|tool|image|video|audio|img|think|message|channel|return|call|start|end|eos|"
    "eot|eot_id|eom|eom_id|python_tag|endoftext|startoftext|(?:begin|end)_of_(?:text|sentence)|"
    "(?:start|end)_of_role|role_end|(?:start|end)_header_id|header_(?:start|end)|im_[a-z]+|endof[a-z]+|"
    "tool_(?:call|response)_(?:start|end)|[a-z]+_?pad|(?:audio|vision)_(?:bos|eos|start|end)|fim_[a-z]+"
)
TOKENS = re.compile(
    rf"<\|(?:{_SPECIAL})\|>|"
    r"</?s>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>|<｜[^｜]{1,40}｜>"
)


@text_lint(TEMPLATE_TOKEN, signs=["<", "inst]"])
def template_tokens(row: RowTexts) -> str:
    """The first token of a chat template in any text."""
    return first_match(TOKENS, [text for text in row.texts if "<" in text or "INST]" in text])
