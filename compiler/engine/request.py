"""The request and the report of a compile."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

from tuneyard.compiler.check.unused_columns import Unused
from tuneyard.compiler.columns.label import UNKNOWN_LABEL
from tuneyard.compiler.engine.identity import deciding_code
from tuneyard.compiler.rows.counts import Counts
from tuneyard.compiler.rows.problems import KEPT, Problems
from tuneyard.compiler.spec.file import place_of
from tuneyard.compiler.spec.model import REJECTED, Spec
from tuneyard.core.datasets import DEFAULT_FOLDER, REGISTRY
from tuneyard.core.datasets.compiled import ROW_INDEX, CompiledFiles
from tuneyard.core.errors import ContentError
from tuneyard.core.files import JsonObject
from tuneyard.core.language.translation import tr
from tuneyard.core.text.words import counted

COUNTED = ("read", "kept", "dropped", "rejected", "not_sampled")
MOST_UNKNOWN = 0.05
"""Of the rows. More of them with unknown labels are a class, which no compile should leave out."""
SEED = 42
"""The seed of samples and splits unless the user or the spec names another."""
Identity = JsonObject
Sources = list[dict[str, str]]
"""The split, the path and the SHA-256 of each source file."""


class CompileRequest(NamedTuple):
    """The settings of a compile besides the spec.

    - `limit`: the most readable rows of each split, None for all.
    - `most_problems`: the most errors, and the most warnings, that are kept as text.
    """

    sources: tuple[str, ...] = ()
    out: Path = DEFAULT_FOLDER
    limit: int | None = None
    seed: int = SEED
    reject: bool = False
    strict: bool = False
    force: bool = False
    over: Mapping[str, object] = {}
    most_problems: int = KEPT
    workers: int | None = None
    ray: str | None = None

    def identity(self, spec: Spec, sources: Sources) -> Identity:
        """All settings that the written bytes depend on: equal identities mean equal bytes."""
        parts = spec.mix.parts.values() if spec.mix else (spec,)
        forms = {form for part in parts for form in part.source.form}
        types = {column.type.name for part in parts for column in part.columns}
        return {
            "spec": spec.given_as,
            "definition": spec.raw,
            "over": self.over,
            "limit": self.limit,
            "seed": self.seed,
            "on_error": "reject" if self.reject else "fail",
            "sources": sources,
            **deciding_code((source["path"] for source in sources), forms, types),
        }

    def problems_in(self, folder: Path | None) -> Problems:
        """A collection of problems. Bad rows that do not end the compile go to a file in `folder`.

        A check has no folder, and rejects nothing.
        """
        rejected = folder / REJECTED if folder and self.reject else None
        return Problems(self.most_problems, rejected)


@dataclass(kw_only=True)
class CompileReport(Counts):
    """The result of a compile: counts of source rows, records by dataset, problems."""

    name: str
    problems: Problems
    datasets: dict[str, int] = field(default_factory=dict)
    files: CompiledFiles = field(default_factory=dict)
    fit: JsonObject = field(default_factory=dict)
    unused: Unused = field(default_factory=Unused)
    up_to_date: bool = False
    seconds: float = 0.0

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
                    f"{self.name}: internal error: read {self.read}, but {output} has {records}, and "
                    f"{others} are dropped, rejected or not sampled: nothing was published; please report "
                    "this"
                )

    def line(self) -> str:
        """One line for people: the counts, the records of each dataset, the seconds."""
        parts = [self.name, f"read {self.read}"]
        if not self.failed:
            parts.append(f"kept {self.kept}")
        if self.dropped or not self.failed:
            dropped = str(sum(self.dropped.values()))
            if self.dropped:
                reasons = ", ".join(f"{tr(reason)} {count}" for reason, count in self.dropped.items())
                dropped = tr("{count} ({reasons})", count=dropped, reasons=reasons)
            parts.append(f"dropped {dropped}")
        if self.rejected:
            parts.append(f"rejected {self.rejected}")
        if self.not_sampled:
            parts.append(f"not sampled {self.not_sampled}")
        if self.failed:
            parts.append(f"not written {self.not_written}")
        else:
            parts += [f"{name} {rows}" for name, rows in self.datasets.items()]
        if self.up_to_date:
            parts.append(tr("up to date"))
        return "  ".join([*parts, f"{self.seconds:.1f} s"])

    def verdict(self, spec: str) -> str:
        """Why a compile failed, and how to compile the other rows if only some rows are wrong.

        `spec` is its name or path.
        """
        errors = self.problems.count("E")
        reason = counted(errors, "problem")
        if not errors:
            reason = f"{counted(self.problems.count('W'), 'warning')}, and --strict"
        message = f"{reason}; nothing was written"
        of_rows = counted(self.read, "row")
        unknown = self.problems.counts[UNKNOWN_LABEL]
        if unknown > max(1, self.read * MOST_UNKNOWN):  # one row is no class
            place = place_of("labels", spec)
            fix = "correct it there"
            if not spec.endswith((".yaml", ".yml")):  # a spec of the user's own may be what init has proposed
                fix += ", or take the spec of this file: `tuneyard data init FILE` proposes one"
            return f"{message}. {unknown} of {of_rows} have labels that are not in `labels` ({place}): {fix}"
        if self.problems.fatal or not 0 < self.rejected < self.read:
            return f"{message}. Correct them and compile again"
        return (
            f"{message}. Correct {self.rejected} of {of_rows}, or compile the others with "
            f"--on-error reject, which lists the rejected ones in {REJECTED}"
        )

    def result_lines(self, out: Path) -> list[str]:
        """Lines for people: the paths of the files, and the registry."""
        folder = out / self.name
        datasets = [name for name in self.datasets if name not in self.files]
        files = [str(folder / name) for name in self.files if not name.endswith(ROW_INDEX)]
        lines = [f"files: {', '.join(files)}"]
        if self.rejected:
            lines.append(f"rejected rows: {folder / REJECTED}")
        if not datasets:
            return [*lines, "not registered: no output of the spec has a `dataset` name"]
        return [*lines, f"registered in {out / REGISTRY}: {', '.join(datasets)}"]

    def as_json(self) -> JsonObject:
        """The report for `--json`: the figures of the last line, and every problem."""
        counts = {key: getattr(self, key) for key in COUNTED}
        return {
            "name": self.name,
            **counts,
            "kept": 0 if self.failed else self.kept,
            "datasets": self.datasets,
            "up_to_date": self.up_to_date,
            "seconds": round(self.seconds, 3),
            "counts": dict(sorted(self.problems.counts.items())),
            "fit": self.fit,
            "notes": self.problems.notes,
            "not_used": dict(self.unused.rows),
            "ignored": dict(self.unused.ignored),
            "problems": [asdict(problem) for problem in [*self.problems.errors, *self.problems.warnings]],
        }
