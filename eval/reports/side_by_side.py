"""Several models' answers to the same prompts below each other, as Markdown."""

import re
from collections.abc import Sequence

from eval.reports.sheet import Answered

FENCE = re.compile(r"^\s*(`{3,})", re.MULTILINE)


def side_by_side(asked: Sequence[Answered]) -> str:
    """Return every prompt, its reference answer where there is one, and each model's answer, named, in fenced
    blocks: nothing in an answer is taken for Markdown or HTML."""
    parts = ["# Answers side by side", "This page names the models: raters get sheet.csv alone."]
    for number, one in enumerate(asked, 1):
        texts = {"Prompt": one.prompt, "Reference": one.reference, **one.answers}
        if not one.reference:
            del texts["Reference"]
        parts += [f"## {number}", *(f"**{name}**\n\n{_fenced(text)}" for name, text in texts.items())]
    return "\n\n".join(parts) + "\n"


def _fenced(text: str) -> str:
    longest = max((len(run) for run in FENCE.findall(text)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}text\n{text}\n{fence}"
