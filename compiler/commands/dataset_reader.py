"""The examples of a dataset that is compiled, or of any file of records, one after another."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from tuneyard.compiler.kinds.turn_forms import ASSISTANT, SYSTEM
from tuneyard.compiler.problems import Problems
from tuneyard.compiler.progress import Progress
from tuneyard.compiler.read import read
from tuneyard.compiler.spec.file import Source
from tuneyard.core.datasets import find_dataset
from tuneyard.core.errors import ContentError, ProblemsError, RequestError
from tuneyard.core.prompt import conversation
from tuneyard.core.records import strings

TURNS = ("conversations", "messages", "text")
CONTENT = ("value", "content", "tool_calls")
ROLE_KEYS = ("from", "role")
ROLE_NAMES = {"human": "user", "gpt": "assistant", "function_call": "function", "tool": "observation"}
BESIDE = ("tools", "images", "videos", "audios", "chosen", "rejected", "kto_tag")
MOST_LABELS = 30
LONGEST = 60  # characters of an answer that may be a label
Turn = tuple[str, str]  # role, text


class Example(NamedTuple):
    """What is asked and answered, as text; `beside` is what else its record holds for the model.

    `key` is a hash (8 bytes) of the prompt's text. `content` is one of the answer, of `beside`, and of the
    roles and lengths of the turns. `label` is the answer, "" if it is too long for a label.
    """

    place: str
    prompt: str
    answer: str
    beside: str
    idx: object
    key: int
    content: int
    label: str


def few(labels: Counter[str]) -> Counter[str]:
    """Return how often each label is there; empty where the answers are no few short texts."""
    return Counter() if "" in labels or len(labels) > MOST_LABELS else labels


def stored_examples(name: str, folder: Path) -> Iterator[Example]:
    """Yield the examples of a registered dataset, or of a file of records (`….json`, `….jsonl`, …).

    A bar stands on stderr from two seconds on; memory holds some hundred records. `RequestError` where there
    is no such dataset, `ContentError` where a record is not what its entry says.
    """
    path, entry = Path(name), dict[str, Any]()
    if not path.is_file():
        if "/" in name:
            raise RequestError(f"{name}: file not found; expected a dataset's name or a file of records")
        dataset = find_dataset(name, folder)
        path, entry = dataset.path, dataset.entry
    problems = Problems()
    with closing(Progress([path])) as progress:
        for rows in read(progress.watch(path), str(path), Source({}, {}, {}), problems):
            for number, line in enumerate(rows.lines):
                yield _example(rows.row(number), entry, f"{rows.prefix}{line}")
    if problems.errors:
        raise ProblemsError(problems.errors, name)


def _example(record: object, entry: dict[str, Any], place: str) -> Example:
    if not isinstance(record, dict):
        raise ContentError(f"{place}: found no object, expected a record")
    columns = strings(entry.get("columns"))
    *asked, (role, answer) = _turns(record, entry, columns, place)
    prompt = "\n".join(text for _, text in asked)
    layout = [*((role, len(text)) for role, text in asked), role]
    beside = [columns[each] for each in BESIDE if each in columns] or BESIDE
    others = {name: record[name] for name in beside if record.get(name)}
    rest = json.dumps(others, ensure_ascii=False, sort_keys=True) if others else ""
    idx = record.get("idx", record.get("id"))
    idx = idx if isinstance(idx, str | int) else None
    label = answer if len(answer) <= LONGEST else ""
    content = "\x1e".join([answer, rest, json.dumps(layout)])
    return Example(place, prompt, answer, rest, idx, _hash(prompt), _hash(content), label)


def _turns(record: dict[str, Any], entry: dict[str, Any], columns: dict[str, str], place: str) -> list[Turn]:
    """Return the turns as (role, text). The last is the answer (also a tool's); of a pair the chosen one."""
    tags = strings(entry.get("tags"))
    content = tags.get("content_tag", "")
    pair = entry.get("ranking") is True if entry else {"chosen", "rejected"} <= record.keys()
    chosen = [(ASSISTANT, _text(record.get(columns.get("chosen", "chosen")), content))] if pair else []
    names = (columns.get("messages", TURNS[0]), *TURNS)
    messages = next((record[name] for name in names if isinstance(record.get(name), list)), None)
    if not messages or not all(isinstance(message, dict) for message in messages):
        talk = conversation(record, entry, place)
        asked = [(message["role"], message["content"]) for message in talk.messages]
        return asked + (chosen or [(talk.role, talk.answer)])
    turns = [(_role(message, tags), _text(message, content)) for message in messages]
    system = record.get(columns.get("system", "system"))
    first = [(SYSTEM, _text(system))] if system else []
    return [*first, *turns, *chosen]


def _role(message: dict[str, Any], tags: dict[str, str]) -> str:
    """Return the role of a turn by LLaMA-Factory's name, so that datasets of two formats can be compared."""
    key = next((key for key in (tags.get("role_tag", ""), *ROLE_KEYS) if key in message), "")
    role = str(message.get(key, ""))
    for name, tag in tags.items():
        if tag == role and name not in ("role_tag", "content_tag"):
            return name.removesuffix("_tag")
    return ROLE_NAMES.get(role, role)


def _text(content: object, key: str = "") -> str:
    if isinstance(content, dict):
        content = next((content[x] for x in (key, *CONTENT) if content.get(x)), "")
    return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)


def _hash(text: str) -> int:
    data = text.encode(errors="surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")
