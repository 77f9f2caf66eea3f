"""The request of a compile, the job that it becomes, and the report."""

from array import array
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tuneyard.compiler.check.unused_columns import Unused
from tuneyard.compiler.engine.identity import deciding_code
from tuneyard.compiler.read.inputs import Input
from tuneyard.compiler.rows.counts import Counts
from tuneyard.compiler.rows.problems import KEPT, Problems
from tuneyard.compiler.spec.model import REJECTED, Spec
from tuneyard.core.datasets import DEFAULT_FOLDER
from tuneyard.core.datasets.compiled import CompiledFiles
from tuneyard.core.errors import ContentError
from tuneyard.core.files import JsonObject
from tuneyard.core.language.message import _

COUNTED = ("read", "kept", "dropped", "rejected", "not_sampled")
SEED = 42
"""The seed of samples and splits unless the user or the spec names another."""
Identity = JsonObject


class CompileRequest(NamedTuple):
    """What a user asks a compile or a check for.

    - `spec`: it has what the command line changes in it. `sources`: those of `--source`.
    - `limit`: the most readable rows of each split, None for all.
    - `seed`: None if the user gave none.
    - `most_problems`: the most errors, and the most warnings, that are kept as text.
    - `keeps_hashed_rows`: the report has the `HashedRows` of a split by hash.
    """

    spec: Spec
    sources: tuple[str, ...] = ()
    out: Path = DEFAULT_FOLDER
    limit: int | None = None
    seed: int | None = None
    reject: bool = False
    strict: bool = False
    force: bool = False
    most_problems: int = KEPT
    workers: int | None = None
    ray: str | None = None
    keeps_hashed_rows: bool = False


class HashedRows(NamedTuple):
    """What a split by hash goes by: the key of each kept row, and the number of its class in `classes`.

    `class_numbers` is empty if the rows have no labels.
    """

    keys: "array[int]"
    class_numbers: "array[int]"
    classes: tuple[str, ...]


@dataclass(frozen=True)
class CompileJob:
    """A compile, complete before the first row is read: nothing that it needs is looked for again.

    - `spec`: the spec with which the inputs are read, as `read.inputs.spec_with_inputs` gives both.
    - `stamps`: the identity of each input's content when it was found.
    """

    spec: Spec
    request: CompileRequest
    inputs: Sequence[Input]
    stamps: Sequence[tuple[int, ...]]

    @property
    def seed(self) -> int:
        """The seed of samples and splits."""
        return SEED if self.request.seed is None else self.request.seed

    def identity(self) -> Identity:
        """All that the written bytes depend on: equal identities mean equal bytes. The inputs are hashed."""
        spec, request = self.spec, self.request
        specs = spec.mix.sources.values() if spec.mix else (spec,)
        forms = {form for each in specs for form in each.source.form}
        types = {column.type.name for each in specs for column in each.columns}
        with ThreadPoolExecutor() as pool:
            sources = list(pool.map(Input.identity, self.inputs))
        return {
            "spec": spec.given_as,
            "definition": spec.raw,
            "over": spec.over,
            "limit": request.limit,
            "seed": self.seed,
            "on_error": "reject" if request.reject else "fail",
            "sources": sources,
            **deciding_code((source["path"] for source in sources), forms, types),
        }

    def new_problems(self, folder: Path | None) -> Problems:
        """A collection of problems. Bad rows that do not end the compile go to a file in `folder`.

        A check has no folder, and rejects nothing.
        """
        rejected = folder / REJECTED if folder and self.request.reject else None
        return Problems(self.request.most_problems, rejected)


@dataclass(kw_only=True)
class CompileReport(Counts):
    """The result of a compile: counts of source rows, records by dataset, problems."""

    name: str
    problems: Problems
    datasets: dict[str, int] = field(default_factory=dict)
    files: CompiledFiles = field(default_factory=dict)
    quality: JsonObject = field(default_factory=dict)
    unused: Unused = field(default_factory=Unused)
    up_to_date: bool = False
    seconds: float = 0.0
    hashed_rows: HashedRows | None = None

    @property
    def failed(self) -> bool:
        """True if problems kept the compile from publishing."""
        problems = self.problems
        return problems.fatal or (problems.bad_rows > 0 and problems.rejected is None)

    def balance(self, records_of_outputs: Mapping[str, int]) -> None:
        """`ContentError` unless each output has every row that was read and neither dropped nor rejected."""
        others = sum(self.dropped.values()) + self.rejected + self.not_sampled
        for output, records in records_of_outputs.items():
            if self.read != records + others:
                raise ContentError(
                    _(
                        "{name}: internal error: read {read}, but {output} has {records}, and "
                        "{others} are dropped, rejected or not sampled: nothing was published; "
                        "please report this",
                        name=self.name,
                        read=self.read,
                        output=output,
                        records=records,
                        others=others,
                    )
                )
