"""The examples that a training starts with, as fingerprints: computed from its datasets, and kept as a file.

`tuneyard recipe train` writes `_trained_rows.npy` into its output_dir: each fingerprint once, in ascending
order, 8 bytes each. It has the format of a row index (compiled.py). Merged, fused, extracted and renamed
weights have the union of their inputs. Scoring counts the test examples in it, also after the datasets have
changed or are gone.

The name begins with `_`, so that the trainer of transformers does not push the file to a hub
(`ignore_patterns` of `Trainer.push_to_hub`): a hash of a short text tells the text.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tuneyard.core.datasets import Dataset, find_dataset, read_records
from tuneyard.core.datasets.compiled import (
    FINGERPRINT,
    SEPARATOR,
    fingerprints,
    manifest_beside,
    read_numbers,
    read_row_index,
    write_row_index,
)
from tuneyard.core.documents import is_number
from tuneyard.core.errors import ContentError, RequestError, TuneyardError
from tuneyard.core.files import sha256
from tuneyard.core.files.links import own_file
from tuneyard.core.language.message import Message, _, message_of, relative
from tuneyard.core.llamafactory.prompt import PromptAndAnswer, prompt_and_answer
from tuneyard.core.records.training_record import TrainedDataset
from tuneyard.core.training.training_run import TRAINED_ROWS, record_folders

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Fingerprints = NDArray[np.uint64]
    """Fingerprints of examples."""

MOST_ROWS = 1 << 27
"""The largest number of fingerprints in a file: 1 GiB, since a union is made in memory."""
_BLOCK = 1 << 20
"""Fingerprints that are compared at a time."""
_LARGEST_SEED = 2**63


class TrainedExamples(NamedTuple):
    """The examples that a training reads, in its order. `problems` has the reason by unreadable dataset."""

    fingerprints: "Fingerprints"
    problems: Mapping[str, str]


def trained_conversations(dataset: Dataset, most: int | None = None) -> Iterator[PromptAndAnswer]:
    """Yield the first `most` examples of a dataset as training reads them."""
    file = relative(dataset.path)
    for number, record in enumerate(read_records(dataset.path)[:most], 1):
        yield prompt_and_answer(record, dataset.entry, f"{file}: record {number}")


def fingerprints_of(examples: Sequence[PromptAndAnswer]) -> "Fingerprints":
    """Fingerprints of the conversations' prompts. Images count by their paths."""
    import numpy as np

    prompts = []
    for example in examples:
        texts = [message["content"] for message in example.messages if message["role"] != "system"]
        prompts.append(SEPARATOR.join([*texts, *example.images]))
    return np.array(fingerprints(prompts), np.uint64)


def held_out_rows(count: int, size: float, seed: int) -> list[int]:
    """Rows (from 0, in order) that a training with this `val_size` and seed did not train on.

    `train_test_split` of the datasets library holds them out, both in LLaMA-Factory and in the published
    script. A `size` of 1 or more is a number of rows.
    """
    import numpy as np

    shuffled = np.random.default_rng(seed).permutation(count)
    number = int(size)
    if size < 1:
        number = math.ceil(size * count)
    held_out: list[int] = shuffled[:number].tolist()
    return sorted(held_out)


def has_known_rows(settings: Mapping[str, object]) -> bool:
    """True if the settings decide which rows of its datasets a training reads, and not only which at most.

    A stream is shuffled before `val_size` takes its rows, and interleaving mixes them in another order or
    leaves rows out.
    """
    mixing = str(settings.get("mix_strategy", "concat"))
    if mixing == "interleave_under":
        return False
    is_in_order = mixing == "concat" and settings.get("streaming") is not True
    return is_in_order or not settings.get("val_size")


def is_drawn(data: TrainedDataset) -> bool:
    """True if LLaMA-Factory draws some of a dataset's rows at random: `num_samples` of its entry."""
    drawn = data.get("num_samples")
    return drawn is not None and drawn < data.get("rows", drawn + 1)


def trained_examples(
    datasets: Sequence[TrainedDataset], settings: Mapping[str, object], registry: Path
) -> TrainedExamples:
    """Fingerprints of the rows that a training with these settings reads of its datasets.

    The first `max_samples` of each dataset count, without the rows that `val_size` holds out. Where only
    LLaMA-Factory knows these rows, they count, too (`has_known_rows`, `num_samples`).
    """
    import numpy as np

    parts = [np.empty(0, np.uint64)]
    problems: dict[str, str] = {}
    most = settings.get("max_samples")
    for data in datasets:
        try:
            of_dataset = _fingerprints(data, registry)
        except (TuneyardError, UnicodeEncodeError) as error:
            problems[data["dataset"]] = message_of(error)
            continue
        if isinstance(most, int) and most >= 0 and "num_samples" not in data:  # these come in another order
            of_dataset = of_dataset[:most]
        parts.append(of_dataset)
    examples = np.concatenate(parts)
    held_out, seed = settings.get("val_size"), settings.get("seed", 42)
    are_in_order = has_known_rows(settings) and not any("num_samples" in data for data in datasets)
    if not are_in_order or problems or not is_number(held_out) or held_out <= 0:
        return TrainedExamples(examples, problems)
    if isinstance(seed, int) and 0 <= seed < _LARGEST_SEED:
        examples = np.delete(examples, held_out_rows(len(examples), held_out, seed))
    return TrainedExamples(examples, problems)


def _fingerprints(data: TrainedDataset, registry: Path) -> "Fingerprints":
    """Fingerprints of a dataset's examples; an error if its file has changed since the training."""
    name = data["dataset"]
    path = Path(data["file"]) if "file" in data else find_dataset(name, registry).path
    if not path.is_file():
        raise RequestError(_("{path} is not there any more, or a folder", path=path))
    digest = sha256(path)
    if data.get("sha256") not in (None, digest):
        raise ContentError(_("{path} changed since it was trained on", path=path))
    index = read_row_index(path)
    if index is not None:
        compiled = manifest_beside(path)
        if compiled is None or compiled[1].sha256 == digest:
            return index.fingerprints
    return fingerprints_of(list(trained_conversations(find_dataset(name, registry)._replace(path=path))))


def trained_rows_file(folder: Path) -> Path | None:
    """The file of fingerprints of the weights in a folder. That of a checkpoint is in the output_dir above.

    None without one. `ContentError` for a link out of its folder, and for a pipe.
    """
    for record_folder in record_folders(folder.resolve()):
        path = record_folder / TRAINED_ROWS
        if own_file(path).is_file():
            return path
    return None


def read_trained_rows(folder: Path) -> "Fingerprints | None":
    """Fingerprints in ascending order of the rows that the weights in a folder were trained on.

    They are mapped, not read, so that looking some up takes no memory. None without a file. `ContentError`
    for a broken one.
    """
    import numpy as np

    path = trained_rows_file(folder)
    if path is None:
        return None
    fix = _("remove it, so that the rows are looked up in the datasets")
    rows = read_numbers(path, fix)
    if rows.dtype.names != (FINGERPRINT,) or rows.dtype[FINGERPRINT] != np.dtype("<u8"):
        raise ContentError(
            _(
                "{path}: found {dtype}, expected the one field {fingerprint!r} of 8 bytes; {fix}",
                path=path,
                dtype=rows.dtype,
                fingerprint=FINGERPRINT,
                fix=fix,
            )
        )
    if len(rows) > MOST_ROWS:
        raise ContentError(
            _(
                "{path}: found {rows:,} rows, expected at most {most:,}; {fix}",
                path=path,
                rows=len(rows),
                most=MOST_ROWS,
                fix=fix,
            )
        )
    numbers: Fingerprints = rows[FINGERPRINT]
    for start in range(0, len(numbers), _BLOCK):  # a hole of a sparse file is zeros, and ends it
        block = numbers[start : start + _BLOCK + 1]
        ascends = block[1:] > block[:-1]
        if not ascends.all():
            raise ContentError(
                _(
                    "{path}: row {row} is not larger than the row before it, expected each fingerprint once, "
                    "in ascending order; {fix}",
                    path=path,
                    row=start + int(ascends.argmin()) + 2,
                    fix=fix,
                )
            )
    return numbers


def contains(rows: "Fingerprints", examples: "Fingerprints") -> "NDArray[np.bool_]":
    """True for each example whose fingerprint is among these rows, which are in ascending order."""
    import numpy as np

    if not len(rows):
        return np.zeros(len(examples), bool)
    places = np.searchsorted(rows, examples)
    at_places = rows[np.minimum(places, len(rows) - 1)]
    return np.equal(at_places, examples)


def write_trained_rows(folder: Path, parts: Sequence["Fingerprints"]) -> None:
    """Write the union of fingerprints into a folder. `ContentError` if they are more than `MOST_ROWS`."""
    import numpy as np

    rows = np.unique(np.concatenate([np.empty(0, np.uint64), *parts]))
    path = folder / TRAINED_ROWS
    if len(rows) > MOST_ROWS:
        raise ContentError(
            _(
                "{path}: {rows:,} rows would be recorded, expected at most {most:,}",
                path=path,
                rows=len(rows),
                most=MOST_ROWS,
            )
        )
    write_row_index(path, rows.data, {})


def write_union(folder: Path, inputs: Iterable[Path]) -> list[Message]:
    """Write the union of the fingerprints of the weights in `inputs` next to those that are made of them.

    Without a file of each there is no union: the inputs are then asked one by one. The result has a note on
    each broken file, for the same reason.
    """
    parts: list[Fingerprints] = []
    is_whole = True
    notes: list[Message] = []
    for place in inputs:
        try:
            rows = read_trained_rows(place)
        except ContentError as error:
            notes.append(_("{error}; the result has no record of its training rows", error=error))
            rows = None
        if rows is None:
            is_whole = False
        else:
            parts.append(rows)
    if is_whole and parts:
        try:
            write_trained_rows(folder, parts)
        except ContentError as error:
            notes.append(_("{error}; the result has no record of its training rows", error=error))
    return notes
