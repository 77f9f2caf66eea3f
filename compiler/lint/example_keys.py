"""Keys of examples as records have them: equal for the examples that a compile finds equal."""

from array import array
from collections.abc import Sequence

from tuneyard.compiler.lint.text_keys import SEPARATOR, keys_of_texts, plain_text, short_keys_of_texts
from tuneyard.core.records import Example


def keys_of_examples(examples: Sequence[Example]) -> "dict[str, array[int]]":
    """The columns `prompts` and `answers` of `Fingerprints`."""
    prompts, answers = [], []
    for each in examples:
        texts = "\n".join(message.text for message in each.messages)
        prompts.append(_joined([texts, each.system, each.tools, *each.paths]))
        answers.append(_joined([*(answer.text for answer in each.answers), str(each.desirable)]))
    return {"prompts": keys_of_texts(prompts), "answers": short_keys_of_texts(answers)}


def _joined(texts: Sequence[str]) -> bytes:
    return SEPARATOR.join(map(plain_text, texts))
