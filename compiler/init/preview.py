"""The first examples of a proposal as the model will read them."""

import json

from compiler.entries import entry_of
from compiler.kinds import PAIR
from compiler.problems import Problems
from compiler.render import Renderer
from compiler.spec import Spec
from compiler.trace import kept_rows
from core.prompt import conversation

SHOWN = 3
LONGEST = 400  # characters of a text that are shown


def preview(spec: Spec) -> list[str]:
    """Return the lines of the first three examples: each turn of the prompt, and the answer."""
    lines = []
    for number, row in enumerate(kept_rows(spec, (), Problems()), 1):
        output = row.spec.outputs[0]
        record = json.loads(Renderer(row.spec, output).render(row.batch)[0])
        lines.append(f"example {number}, {row.batch.place(0)}")
        if output.format == "text":
            lines.append(f"  text: {_short(record[output.field])}")
        else:
            talk = conversation(record, entry_of(row.spec, output, output.file), row.batch.place(0))
            lines += [f"  {turn['role']}: {_short(turn['content'])}" for turn in talk.messages]
            for name in PAIR if PAIR[0] in record else ():
                side = record[name]
                lines.append(f"  {name}: {_short(side['value'] if isinstance(side, dict) else side)}")
            lines += [f"  answer: {_short(talk.answer)}"] if PAIR[0] not in record else []
        if number == SHOWN:
            break
    return lines


def _short(text: str) -> str:
    shown = text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(text)} characters)"
    return shown.replace("\n", "\n    ")
