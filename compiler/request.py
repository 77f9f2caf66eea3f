"""What a user asks of a compile, and what the compile answers."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from compiler.problems import Problems
from compiler.progress import Progress
from compiler.spec import Output, Spec
from compiler.unused import Unused
from compiler.write import RecordFile
from core.errors import ContentError, counted


@dataclass(frozen=True, slots=True)
class Request:
    """What a user asks of a compile besides the spec."""

    sources: tuple[str, ...] = ()
    out: Path = Path("dataset_info")
    limit: int | None = None
    seed: int = 42
    quarantine: bool = False
    strict: bool = False
    force: bool = False
    duplicates: bool = True
    over: Mapping[str, object] = field(default_factory=dict)
    every_problem: bool = False


@dataclass(slots=True)
class Report:
    """What a compile did: counts of source rows, records by dataset, problems."""

    name: str
    problems: Problems
    read: int = 0
    kept: int = 0
    rejected: int = 0
    not_sampled: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    datasets: dict[str, int] = field(default_factory=dict)
    files: dict[str, dict[str, object]] = field(default_factory=dict)
    written: list[tuple[str, Output, RecordFile]] = field(default_factory=list)
    fit: dict[str, object] = field(default_factory=dict)
    unused: Unused = field(default_factory=Unused)
    up_to_date: bool = False
    seconds: float = 0.0
    progress: Progress = field(default_factory=Progress)

    @property
    def notes(self) -> list[str]:
        """What is said for people besides problems."""
        return self.problems.notes

    def drop(self, reason: str, count: int) -> None:
        """Count dropped rows."""
        if count:
            self.dropped[reason] = self.dropped.get(reason, 0) + count

    @property
    def failed(self) -> bool:
        """Whether nothing was published because of what was found."""
        return self.problems.stopped

    def keep_files(self, spec: Spec, split: str, files: Sequence[RecordFile]) -> None:
        """Note the files of a split that hold records; remove those that hold none."""
        for (_, output), file in zip(spec.outputs_of(split), files, strict=False):  # a check has no files
            if file.rows:
                self.written.append((split, output, file))
            else:
                file.path.unlink()

    def balance(self) -> None:
        """Hold the counts of rows, each of which was made in its own place, against each other."""
        dropped = sum(self.dropped.values())
        total = self.kept + dropped + self.rejected + self.not_sampled
        if self.read != total:
            raise ContentError(
                f"{self.name}: internal error: read {self.read}, but kept {self.kept} + dropped {dropped} "
                f"+ rejected {self.rejected} + not sampled {self.not_sampled} = {total}: nothing was "
                "published; please report this"
            )

    def line(self) -> str:
        """Return the last line of a compile: counts that add up, records by dataset, seconds."""
        why = ", ".join(f"{reason} {count}" for reason, count in self.dropped.items())
        parts = [
            self.name,
            f"read {self.read}",
            "" if self.failed else f"kept {self.kept}",
            "" if self.failed else f"dropped {sum(self.dropped.values())}" + (f" ({why})" if why else ""),
            f"rejected {self.rejected}" if self.rejected else "",
            f"not sampled {self.not_sampled}" if self.not_sampled else "",
            "" if self.failed else "  ".join(f"{name} {rows}" for name, rows in self.datasets.items()),
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
        return {
            "name": self.name,
            "read": self.read,
            "kept": 0 if self.failed else self.kept,
            "dropped": self.dropped,
            "rejected": self.rejected,
            "not_sampled": self.not_sampled,
            "datasets": self.datasets,
            "up_to_date": self.up_to_date,
            "seconds": round(self.seconds, 3),
            "counts": dict(sorted(self.problems.counts.items())),
            "fit": self.fit,
            "notes": self.notes,
            "not_used": self.unused.counts(),
            "problems": [asdict(problem) for problem in self.problems.listed()],
        }
