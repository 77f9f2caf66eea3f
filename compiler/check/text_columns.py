"""The text columns of a spec: those of the prompt and those of the completion."""

from tuneyard.compiler.columns.turns import Conversation
from tuneyard.compiler.rows import Batch
from tuneyard.compiler.spec.column_types import PROMPT
from tuneyard.compiler.spec.model import TOOLS, Spec

Texts = list[str]


class TextColumns:
    """The names and the texts of a spec's first output. Labels are no texts."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.conversation_column = spec.conversation_column
        output = spec.outputs[0]
        types = spec.types
        completion = output.columns_of("output", "assistant")
        self.label_is_learned = "label" in completion and bool(spec.labels)
        self.prompt_columns = output.columns_of("instruction", "input", "system", "user", "text")
        self.completion_columns = [name for name in completion if name != "label" or not spec.labels]
        self.may_be_blank = [
            name for name in self.completion_columns if types[name].may_be_blank or types[name].is_text
        ]
        if self.conversation_column:
            self.prompt_columns = ["prompt"]
            self.completion_columns = ["completion"]
            self.may_be_blank = ["completion"]
        written = spec.written_by(output)
        for name in types:
            if (
                name in ("system", TOOLS)
                and name not in self.prompt_columns
                and (self.conversation_column or name in written)
            ):
                self.prompt_columns.append(name)
        self.pair = [name for name, column_type in types.items() if column_type.is_pair()]
        if self.pair:
            self.completion_columns, self.may_be_blank = self.pair, []
        self.prompt_columns += [name for name, column_type in types.items() if column_type.compared == PROMPT]

    def of(self, batch: Batch) -> dict[str, Texts]:
        """The texts of a batch by column: first the prompts, then the answers."""
        texts: dict[str, Texts] = {}
        if self.conversation_column:
            conversations: list[Conversation] = batch.columns[self.conversation_column]
            end = None if self.pair else -1
            texts["prompt"] = [
                "\n".join(turn.text for turn in conversation[:end]) for conversation in conversations
            ]
            if not self.pair:
                texts["completion"] = [conversation[-1].text for conversation in conversations]
        names = [*self.prompt_columns, *self.completion_columns]
        return {name: texts[name] if name in texts else as_texts(self.spec, name, batch) for name in names}


def fallback_columns(spec: Spec) -> dict[str, str]:
    """The column that is the whole prompt if another one is empty: alpaca's input for its instruction.

    LLaMA-Factory joins the filled ones of the two. {} if a template adds further words.
    """
    column_of_template = {f"{{{name}}}": name for name in spec.types}
    pairs = set()
    for output in spec.outputs:
        instruction = column_of_template.get(output.templates.get("instruction", ""), "")
        pairs.add((instruction, column_of_template.get(output.templates.get("input", ""), "")))
    if len(pairs) != 1:
        return {}
    instruction, other = pairs.pop()
    if not instruction or not other:
        return {}
    return {instruction: other}


def as_texts(spec: Spec, name: str, batch: Batch) -> Texts:
    """The values of a column as texts."""
    return spec.types[name].as_texts(batch.columns[name])
