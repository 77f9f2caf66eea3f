"""Payloads of the page of `data view`, made by hand: no tokenizer, no model."""

import json
import random
import re

from tuneyard.compiler.view.payload import (
    CUT,
    LEARNED,
    MASKED,
    CodeCount,
    PageBlock,
    PageRow,
    PageSide,
    TokenSpan,
    ViewPayload,
)

RED_DOT = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAUAAAAFCAYAAACNbyblAAAAHElEQVQI12P4//8/w38GIAXDIBKE0DHxgljNBAAO"
    "9TXL0Y4OHwAAAABJRU5ErkJggg=="
)
PIECE = re.compile(r"<\|.*?\|>|\n| ?[^\W_]+| ?[^\w\s]| ")


def turn(role: str, text: str, state: int = MASKED, part: str = "text") -> PageBlock:
    """A turn with a token for each word, all of one state."""
    return PageBlock(role, part, text, [(len(piece), state) for piece in PIECE.findall(text)])


def chat(question: str, answer: str, system: str = "You are a helpful assistant.") -> list[PageBlock]:
    """The turns of a question and its learned answer in the way of ChatML."""
    return [
        turn("template", "<|im_start|>system\n"),
        turn("system", system),
        turn("template", "<|im_end|>\n<|im_start|>user\n"),
        turn("user", question),
        turn("template", "<|im_end|>\n<|im_start|>assistant\n"),
        turn("assistant", answer, LEARNED),
        turn("template", "<|im_end|>", LEARNED),
        turn("template", "\n"),
    ]


def row(number: int, turns: list[PageBlock], label: str = "", **values: object) -> PageRow:
    """A row of one side; its counts are those of the turns."""
    made = PageRow(number, json.dumps({"row": number}), label, sides=[PageSide("", "", turns)])
    for name, value in values.items():
        setattr(made, name, value)
    return with_counts(made)


def with_counts(made: PageRow) -> PageRow:
    """Count the tokens of a row's sides by state."""
    spans: list[TokenSpan] = []
    for side in made.sides:
        for each in side.turns:
            spans += each.spans
    states = [span[1] for span in spans]
    made.tokens, made.learned, made.cut = len(states), states.count(LEARNED), states.count(CUT)
    return made


def with_losses(made: PageRow) -> PageRow:
    """Give every learned token of a row a loss; the row's loss is their mean."""
    draw = random.Random(1 + made.row)
    hard = draw.choice([0.2, 0.4, 3.0])
    losses = []
    for side in made.sides:
        for each in side.turns:
            spans: list[TokenSpan] = []
            for length, state, *_ in each.spans:
                loss = None
                if state == LEARNED:
                    loss = draw.random() * hard
                    losses.append(loss)
                spans.append((length, state, loss))
            each.spans = spans
    if losses:
        made.loss = sum(losses) / len(losses)
    return made


def payload(rows: list[PageRow], **values: object) -> ViewPayload:
    """A payload whose counts are those of the rows on its page, with a histogram of ten bins."""
    labels: dict[str, int] = {}
    problems: dict[str, int] = {}
    for each in rows:
        if each.label:
            labels[each.label] = labels.get(each.label, 0) + 1
        for code in each.problems:
            problems[code] = problems.get(code, 0) + 1
    longest = max(each.tokens for each in rows)
    width = -(-longest // 10) or 1
    bins = []
    for start in range(1, longest + 1, width):
        end = start + width - 1
        bins.append((start, end, sum(start <= each.tokens <= end for each in rows)))
    made = ViewPayload(
        dataset="alpaca_rte_train",
        file="alpaca_rte-train.json",
        model="Qwen/Qwen2.5-0.5B-Instruct",
        template="qwen",
        cutoff_len=2048,
        all_rows=len(rows),
        tokens=sum(each.tokens for each in rows),
        learned=sum(each.learned for each in rows),
        cut=sum(each.cut for each in rows),
        bins=bins,
        over_cutoff=sum(each.cut > 0 for each in rows),
        labels=sorted(labels.items()),
        problems=[CodeCount(code, f"message of {code}", count) for code, count in problems.items()],
        rows=rows,
    )
    for name, value in values.items():
        setattr(made, name, value)
    return made
