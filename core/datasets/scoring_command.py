"""The command of `tuneyard eval` that fits a dataset: for the next step after a training, and for `eval nli`.

The whole file decides, not its name or its first rows. A dataset that a user registered by hand gets the same
command as a compiled one.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from tuneyard.core.datasets import DEFAULT_FOLDER, Dataset, find_dataset, read_records, read_registry
from tuneyard.core.datasets.compiled import manifest_beside
from tuneyard.core.datasets.labels import labels_of
from tuneyard.core.files import Fields, strings
from tuneyard.core.llamafactory.stages import PLAIN, rows_of
from tuneyard.core.records import Example, has_media, read_example

JUDGEMENT = "判断"
"""The mark of the judgement in an answer to a defect report."""


def scoring_command(dataset: Dataset) -> str:
    """The scoring command of a dataset: preference, tools, defect, nli or text.

    `ContentError` for records that cannot be read.
    """
    if rows_of(dataset.entry) != PLAIN:
        return "preference"
    records = read_records(dataset.path)
    examples = []
    for number, record in enumerate(records, 1):
        examples.append(read_example(record, dataset.entry, f"{dataset.path}: record {number}"))
    if any(_has_tools(example) for example in examples):
        return "tools"
    answers = [example.answers[0].text if example.answers else "" for example in examples]
    if are_reports(records, answers):
        return "defect"
    can_be_labels = bool(labels_of(answers, declared=True))
    if labels_of(answers) or (can_be_labels and writes_labels(dataset)):
        return "nli"
    return "text"


def scoring_options(names: Iterable[str], folder: Path, *, is_running_text: bool = False) -> list[str]:
    """The scoring command for datasets, and options that name those that it fits. [] if none is registered.

    The first dataset decides. Of running text the whole is scored, whatever its answers are.
    """
    registered = read_registry(folder)
    commands: dict[str, str] = {}
    for name in dict.fromkeys(names):
        if name not in registered:
            continue
        commands[name] = "text"
        if not is_running_text:
            commands[name] = scoring_command(find_dataset(name, folder, lenient=True))
    if not commands:
        return []
    command = next(iter(commands.values()))
    options = [command]
    for name in commands:
        if commands[name] == command:
            options += ["--dataset", name]
    if command == "text" and any(has_media(registered[name]) for name in commands):
        options.append("--no-generate")
    if folder != DEFAULT_FOLDER:
        options += ["--dataset-dir", str(folder)]
    return options


def _has_tools(example: Example) -> bool:
    """True if a conversation declares or calls tools."""
    roles = {message.role for message in [*example.messages, *example.answers]}
    return bool(example.tools) or "function" in roles


def are_reports(records: Sequence[Fields], answers: Sequence[str]) -> bool:
    """True if every record is a defect report: it has a subtype, and its answer a judgement."""
    for record, answer in zip(records, answers, strict=True):
        subtype = record.get("subtype")
        if not isinstance(subtype, str) or not subtype.strip() or JUDGEMENT not in answer:
            return False
    return bool(records)


def writes_labels(dataset: Dataset) -> bool:
    """True if the spec of a compiled dataset has labels and writes nothing else as its answers."""
    compiled = manifest_beside(dataset.path)
    if compiled is None:
        return False
    definition = compiled[0].definition
    if "labels" not in definition:
        return False
    for output in definition.get("write", []):
        stem = str(output.get("dataset", "")).partition("{split}")[0]
        if stem and dataset.name.startswith(stem) and "{label}" in strings(output).values():
            return True
    return False
