"""Sets whose rows are chosen or ordered after all have been read: samples, splits, mixtures."""

import sys
from collections.abc import Sequence
from pathlib import Path

from compiler.arrange import Order, lone_classes, sampled, shuffled, split_rows, without_repeats
from compiler.compare import leaks
from compiler.fingerprints import Fingerprints
from compiler.part import PartRun, record_files, split_files
from compiler.request import Context, Counts, Written
from compiler.sources import Input
from compiler.spec import PART, WHOLE, Spec, Split
from compiler.write import rearrange
from core.errors import ContentError, Problem


class Arranged:
    """Reads everything into one rows file for each output, then writes the splits from those files."""

    def __init__(self, spec: Spec, context: Context, inputs: list[Input], staged: Path | None) -> None:
        self.spec, self.context, self.inputs, self.staged = spec, context, inputs, staged
        self.problems, self.counts, self.written = context.problems, Counts(), Written()

    def run(self) -> tuple[Counts, Written]:
        """Write all splits; returns the counts of rows, the files and the fingerprints of each split."""
        if self.spec.mix or self.spec.split:
            sources = {PART: list(self.spec.parts)}
        else:
            sources = {part: [part] for part in self.spec.parts if self._files_of(part)}
        seen: dict[str, Fingerprints] = {}
        orders: dict[str, tuple[str, Order]] = {}
        whole: Order = ()
        for source, parts in sources.items():
            seen[source] = Fingerprints()
            order = self._read(source, parts, seen[source])
            if self.spec.split:
                split = split_rows(self.spec.split, seen[source], order, self.context.request.seed)
                orders |= {name: (source, rows) for name, rows in split.items()}
                whole = order
                self._name_lone_classes(self.spec.split, seen[source], order)
            else:
                orders[source] = (source, order)
        if self.spec.drop_leaks:
            self._drop_leaks(orders, seen)
        self.counts.kept = sum(len(order) for _, order in orders.values())
        for name, (source, order) in orders.items():
            self._write(name, source, order, seen[source].rows)
        if self.spec.split:
            kept = {row for _, order in orders.values() for row in order}
            self._write(WHOLE, PART, [row for row in whole if row in kept], seen[PART].rows)
        for path in self._rows_files(list(sources)):
            path.unlink()
        self.written.splits = {name: seen[source].take(order) for name, (source, order) in orders.items()}
        return self.counts, self.written

    def _files_of(self, part: str) -> list[Input]:
        return [found for found in self.inputs if found.split == part]

    def _read(self, source: str, parts: Sequence[str], seen: Fingerprints) -> Order:
        """Read parts into the rows files of a source; returns the rows to write, in their order."""
        orders: list[int] = []
        mix = self.spec.mix
        with record_files(self._rows_files([source])) as files:
            for name in parts:
                start = seen.rows
                wanted = round(mix.total * mix.parts[name].share) if mix else None
                own = mix.parts[name].spec if mix else self.spec
                enough = wanted if wanted is not None and own.source.hub.get("stream") else sys.maxsize
                part = PartRun(own, name, self.context, seen)
                self.counts += part.run(self._files_of(name), files, enough)
                orders += self._chosen(name, range(start, seen.rows), seen, wanted)
        return shuffled(orders, mix.shuffle) if mix and mix.shuffle is not None else orders

    def _chosen(self, name: str, rows: range, seen: Fingerprints, wanted: int | None) -> Order:
        """Return the rows of a part that stay: no repeats, so many as are wanted."""
        order: Order = rows
        if self.spec.drop_duplicates:
            fresh = set(without_repeats(seen))
            order = [row for row in rows if row in fresh]
            self.counts += Counts(dropped={"duplicate": len(rows) - len(order)})
        size = wanted if wanted is not None else self.spec.sample if name == PART else None
        if size is None:
            return order
        chosen = sampled(order, size, self.context.request.seed)
        self.counts += Counts(not_sampled=len(order) - len(chosen))
        if wanted is not None:
            self.problems.notes.append(f"{name}: {len(chosen)} rows of {wanted} wanted")
        if wanted is not None and len(chosen) < wanted:
            message = f"the part could not be filled: {wanted} rows wanted, {len(chosen)} found"
            self.problems.warn(Problem("W210", name, message))
        return chosen

    def _name_lone_classes(self, split: Split, seen: Fingerprints, order: Order) -> None:
        home = next(iter(split.shares))
        for name in lone_classes(split, seen, order):
            message = f"one row alone has {split.stratify} {name}: it goes to {home}, and none is trained on"
            self.problems.warn(Problem("W211", self.spec.name, message))

    def _drop_leaks(self, orders: dict[str, tuple[str, Order]], seen: dict[str, Fingerprints]) -> None:
        if PART not in self.spec.splits:
            splits = ", ".join(self.spec.splits)
            what = f"`drop_leaks` drops rows of {PART!r}, of which there is none ({splits})"
            raise ContentError(f"{self.spec.name}: {what}")
        if PART not in orders:
            return
        taken = {name: seen[source].take(order) for name, (source, order) in orders.items()}
        train = taken.pop(PART)
        leaked = {row for other in taken.values() for row, _ in leaks(train, other)}
        source, order = orders[PART]
        orders[PART] = (source, [row for at, row in enumerate(order) if at not in leaked])
        self.counts += Counts(dropped={"leak": len(leaked)})

    def _rows_files(self, sources: Sequence[str]) -> list[Path]:
        if self.staged is None:
            return []
        numbers = range(len(self.spec.outputs))
        return [self.staged / f".{source}-{number}.rows" for source in sources for number in numbers]

    def _write(self, split: str, source: str, order: Order, rows_there: int) -> None:
        if self.staged is None or self.problems.stopped:
            return
        aside = self._rows_files([source])
        with split_files(self.staged, self.spec, split) as files:
            for (number, _), file in zip(self.spec.outputs_of(split), files, strict=True):
                if order:
                    rearrange(aside[number], rows_there, order, file)
        self.written.add(self.spec, split, files)
