"""What a user asks of a compile, what its stages are given and return, and what it reports."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from compiler.fingerprints import Fingerprints
from compiler.problems import Problems
from compiler.progress import Progress
from compiler.spec import Output, Spec
from compiler.unused import Unused
from compiler.write import RecordFile
from core.errors import ContentError, counted

COUNTED = ("read", "kept", "dropped", "rejected", "not_sampled")


@dataclass(frozen=True, slots=True)
class CompileRequest:
    """What a user asks of a compile besides the spec."""

    sources: tuple[str, ...] = ()
    out: Path = Path("dataset_info")
    limit: int | None = None
    seed: int = 42
    reject: bool = False
    strict: bool = False
    force: bool = False
    duplicates: bool = True
    over: Mapping[str, object] = field(default_factory=dict)
    every_problem: bool = False


@dataclass(slots=True)
class Counts:
    """Source rows by what became of them; each stage returns its own, and they are added up."""

    read: int = 0
    kept: int = 0
    rejected: int = 0
    not_sampled: int = 0
    dropped: dict[str, int] = field(default_factory=dict)

    def __add__(self, other: "Counts") -> "Counts":
        both = Counter(self.dropped) + Counter(other.dropped)
        return Counts(
            self.read + other.read,
            self.kept + other.kept,
            self.rejected + other.rejected,
            self.not_sampled + other.not_sampled,
            dict(both),
        )

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


@dataclass(frozen=True, slots=True)
class Context:
    """What all stages of a compile are given: the request, and what collects problems, columns and bytes."""

    request: CompileRequest
    problems: Problems
    unused: Unused
    progress: Progress


@dataclass(slots=True)
class Written:
    """What a compile wrote: the files of each split, and the fingerprints of its rows by split."""

    files: list[tuple[str, Output, RecordFile]] = field(default_factory=list)
    splits: dict[str, Fingerprints] = field(default_factory=dict)

    def add(self, spec: Spec, split: str, files: Sequence[RecordFile]) -> None:
        """Note the files of a split that hold records; remove those that hold none."""
        for (_, output), file in zip(spec.outputs_of(split), files, strict=False):  # a check has no files
            if file.rows:
                self.files.append((split, output, file))
            else:
                file.path.unlink()


@dataclass(slots=True, kw_only=True)
class CompileReport(Counts):
    """What a compile did: counts of source rows, records by dataset, problems."""

    name: str
    problems: Problems
    datasets: dict[str, int] = field(default_factory=dict)
    files: dict[str, dict[str, object]] = field(default_factory=dict)
    fit: dict[str, object] = field(default_factory=dict)
    unused: Unused = field(default_factory=Unused)
    up_to_date: bool = False
    seconds: float = 0.0

    @property
    def notes(self) -> list[str]:
        """What is said for people besides problems."""
        return self.problems.notes

    @property
    def failed(self) -> bool:
        """Whether nothing was published because of what was found."""
        return self.problems.stopped

    def line(self) -> str:
        """Return the last line of a compile: counts that add up, records by dataset, seconds."""
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
        """Return in one line why a compile failed."""
        errors, warnings = self.problems.count("E"), self.problems.count("W")
        found = counted(errors, "problem") if errors else f"{counted(warnings, 'warning')}, and --strict"
        return f"{found}; nothing was written"

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
            "notes": self.notes,
            "not_used": self.unused.counts(),
            "problems": [asdict(problem) for problem in self.problems.listed()],
        }
