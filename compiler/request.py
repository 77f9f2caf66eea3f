"""What a user asks of a compile, and what it reports."""

import hashlib
import shlex
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from tuneyard.compiler.check.unused_columns import Unused
from tuneyard.compiler.problems import Problems
from tuneyard.compiler.spec.file import PACKAGE
from tuneyard.compiler.spec.model import REJECTED, Spec
from tuneyard.core.datasets import DEFAULT_FOLDER, REGISTRY
from tuneyard.core.errors import ContentError, counted
from tuneyard.core.files import versions
from tuneyard.core.manifest import CompiledFile
from tuneyard.core.packages import after_setup

COUNTED = ("read", "kept", "dropped", "rejected", "not_sampled")
PACKAGES = ("jsonschema-rs", "lxml", "orjson", "pyarrow", "zstandard")
SEED = 42
"""The seed of samples and splits unless the user or the spec names another."""
Identity = dict[str, Any]
Sources = list[dict[str, str]]


@dataclass(frozen=True, slots=True)
class CompileRequest:
    """What a user asks of a compile besides the spec."""

    sources: tuple[str, ...] = ()
    out: Path = DEFAULT_FOLDER
    limit: int | None = None
    seed: int = SEED
    reject: bool = False
    strict: bool = False
    force: bool = False
    duplicates: bool = True
    over: Mapping[str, object] = field(default_factory=dict)
    every_problem: bool = False

    def identity(self, spec: Spec, sources: Sources) -> Identity:
        """Return everything that decides what a compile writes: equal identities, equal bytes."""
        return {
            "spec": spec.name,
            "definition": spec.raw,
            **{key: getattr(self, key) for key in ("over", "limit", "seed", "duplicates")},
            "on_error": "reject" if self.reject else "fail",
            "sources": sources,
            "tokenizers": [output.pieces.identity() for output in spec.outputs if output.pieces],
            "compiler": own_hash(),
            "versions": {"python": sys.version.split()[0], **versions(*PACKAGES)},
        }


@cache
def own_hash() -> str:
    """Return one hash over the compiler's own source: a changed compiler makes sets stale."""
    digest = hashlib.sha256()
    for path in sorted([*PACKAGE.rglob("*.py"), *PACKAGE.glob("schemas/*.json")]):
        digest.update(path.read_bytes())
    return digest.hexdigest()


@dataclass(slots=True)
class Counts:
    """Source rows by what became of them; each stage returns its own, and they are added up."""

    read: int = 0
    kept: int = 0
    rejected: int = 0
    not_sampled: int = 0
    dropped: dict[str, int] = field(default_factory=dict)

    def __add__(self, other: "Counts") -> "Counts":
        totals = {key: getattr(self, key) + getattr(other, key) for key in COUNTED if key != "dropped"}
        return Counts(**totals, dropped=dict(Counter(self.dropped) + Counter(other.dropped)))

    def balance(self, name: str) -> None:
        """Hold the counts of rows, each of which was made in its own place, against each other."""
        dropped = sum(self.dropped.values())
        total = self.kept + dropped + self.rejected + self.not_sampled
        if self.read != total:
            raise ContentError(
                f"{name}: internal error: read {self.read}, but kept {self.kept} + dropped {dropped} "
                f"+ rejected {self.rejected} + not sampled {self.not_sampled} = {total}: nothing was "
                "published; please report this"
            )


@dataclass(slots=True, kw_only=True)
class CompileReport(Counts):
    """What a compile did: counts of source rows, records by dataset, problems."""

    name: str
    problems: Problems
    datasets: dict[str, int] = field(default_factory=dict)
    files: dict[str, CompiledFile] = field(default_factory=dict)
    fit: dict[str, object] = field(default_factory=dict)
    unused: Unused = field(default_factory=Unused)
    up_to_date: bool = False
    seconds: float = 0.0

    @property
    def failed(self) -> bool:
        """Whether nothing was published because of what was found."""
        return self.problems.stopped

    def line(self) -> str:
        """Return the line of counts that add up, records by dataset, and seconds."""
        why = ", ".join(f"{reason} {count}" for reason, count in self.dropped.items())
        dropped = f"dropped {sum(self.dropped.values())}" + (f" ({why})" if why else "")
        records = "  ".join(f"{name} {rows}" for name, rows in self.datasets.items())
        parts = [
            self.name,
            f"read {self.read}",
            *(() if self.failed else (f"kept {self.kept}", dropped)),
            f"rejected {self.rejected}" if self.rejected else "",
            f"not sampled {self.not_sampled}" if self.not_sampled else "",
            "" if self.failed else records,
            "up to date" if self.up_to_date else "",
            f"{self.seconds:.1f} s",
        ]
        return "  ".join(part for part in parts if part)

    def verdict(self) -> str:
        """Return why a compile failed, and how to compile the other rows if only some rows are wrong."""
        errors, warnings = self.problems.count("E"), self.problems.count("W")
        found = counted(errors, "problem") if errors else f"{counted(warnings, 'warning')}, and --strict"
        message = f"{found}; nothing was written"
        if self.problems.fatal or not 0 < self.rejected < self.read:
            return message
        return (
            f"{message}. Correct {self.rejected} of {counted(self.read, 'row')}, or compile the others with "
            f"--on-error reject, which lists the rejected ones in {REJECTED}"
        )

    def result_lines(self, spec: Spec, out: Path) -> list[str]:
        """Return where the files of a compile are, where they are registered, and what to run next."""
        files, datasets = [], []
        for split in spec.splits:
            for output in spec.outputs:
                file_name = output.file.format(split=split)
                dataset = output.dataset.format(split=split) if output.dataset else ""
                if (dataset or file_name) not in self.datasets:
                    continue
                files.append(str(out / spec.name / file_name))
                if dataset:
                    datasets.append(dataset)
        lines = [f"files: {', '.join(files)}"]
        if self.rejected:
            lines.append(f"rejected rows: {out / spec.name / REJECTED}")
        if not datasets:
            return [*lines, "not registered: no output of the spec has a `dataset` name"]
        elsewhere = [] if out == DEFAULT_FOLDER else ["--out", str(out)]
        verify = shlex.join(["tuneyard", "data", "verify", spec.name, *elsewhere])
        return [
            *lines,
            f"registered in {out / REGISTRY}: {', '.join(datasets)}",
            f"next: {after_setup(verify, 'llamafactory')}",
        ]

    def as_json(self) -> dict[str, object]:
        """Return the report for --json: the last line's figures, and every problem."""
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
            "not_used": self.unused.counts(),
            "ignored": self.unused.ignored_counts(),
            "problems": [asdict(problem) for problem in self.problems.listed()],
        }
