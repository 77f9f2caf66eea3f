"""Keys of examples as records have them: equal for the examples that `Lint` finds equal in a compile."""

from collections.abc import Sequence

from tuneyard.compiler.lint.fingerprints import Fingerprints
from tuneyard.compiler.lint.row_checks import SEPARATOR, keys_of_texts, plain_text, short_keys_of_texts
from tuneyard.compiler.rows import Line
from tuneyard.core.records import Example


def add_examples(seen: Fingerprints, prefix: str, lines: Sequence[Line], examples: Sequence[Example]) -> None:
    """Append examples to `seen`; the place of each is `prefix` + line."""
    prompts = [_joined([*_turn_texts(each), each.system, each.tools, *each.paths]) for each in examples]
    answers = [_joined([*(text for _, text in each.answers), str(each.mark)]) for each in examples]
    seen.add(prefix, lines, {"prompts": keys_of_texts(prompts), "answers": short_keys_of_texts(answers)})


def _turn_texts(example: Example) -> list[str]:
    return ["\n".join(text for _, text in example.turns)]


def _joined(texts: Sequence[str]) -> bytes:
    return SEPARATOR.join(map(plain_text, texts))
