"""A dataset in the records of trainings and merges (training.json, started.json, merge.json)."""

from typing import Required, TypedDict


class TrainedDataset(TypedDict, total=False):
    """A dataset that weights were trained on. A model card of plain LLaMA-Factory has its name alone.

    `rows` are those of a compile. `num_samples` is that of its entry: LLaMA-Factory draws so many rows.
    """

    dataset: Required[str]
    file: str
    sha256: str | None
    manifest_sha256: str | None
    rows: int
    num_samples: int
