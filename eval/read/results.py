"""How a run is kept: run.json says what was asked of what, predictions.jsonl grows batch by batch,
results.json is written last, so that its existence means that the model is done with the set.

Nothing that differs from one run to the next (times, the order of batches) is in the final files:
a run killed at any moment and resumed ends with the bytes of an unbroken one.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tuneyard.core import version
from tuneyard.core.documents import json_lines
from tuneyard.core.errors import ContentError, RequestError, TuneyardError, counted, show_value
from tuneyard.core.files import atomic, read_object, write_json

RUN = "run.json"
PREDICTIONS = "predictions.jsonl"
RESULTS = "results.json"
CALLER = "by"  # in run.json: the module that called the scoring command, if one did
REPEATS = "repeats"  # in OUT/MODEL/SET: a folder with one for each further repeat of sampled answers
METRICS = "metrics.json"  # of eval.text alone: the figures by the names that others know
WITH_TABLE = ("eval.suite", "eval.sweep")  # commands that write a table.md of their own into OUT
TABLE_JSON, TABLE, CHANGED, PAGE = "table.json", "table.md", "changed.jsonl", "report.html"
COMPARED = (TABLE_JSON, TABLE, CHANGED, PAGE)
"""The files of `tuneyard eval compare`, next to its plots."""
PARTS = ("settings", "models", "sets")  # what every run.json holds
UNMERGED, MERGED = "unmerged", "merged"
Prediction = dict[str, Any]
Identity = dict[str, dict[str, Any]]  # settings, models and sets, each by name


def shown_command(module: str) -> str:
    """Return how a user calls a scoring module: `eval.nli` is `tuneyard eval nli`."""
    return f"tuneyard {module.replace('.', ' ')}"


def check_new(out: Path, command: str, *, resume: bool, force: bool) -> None:
    """Refuse a folder OUT that `command` (a module such as `eval.nli`) must not write into.

    Raises `RequestError` if OUT holds anything but a run of the same command: nothing would be left of it.
    A run of the same command needs `resume` or `force`, which are offered for such a run alone.
    """
    if resume and force:
        raise RequestError("--resume resumes and --force starts anew: give one of them")
    if not out.exists():
        return
    _check_owner(out, command)
    if not (resume or force):
        raise RequestError(f"{out} exists: --resume resumes it, --force starts it anew")


def _check_owner(out: Path, command: str) -> None:
    """Raise `RequestError` unless OUT is empty or holds a run of `command`."""
    if not (out / RUN).is_file():
        if not out.is_dir() or any(not path.name.startswith(f".{RUN}.") for path in out.iterdir()):
            raise RequestError(f"{out}: no results folder (it has no {RUN}): choose another --out")
        return
    owner = _owner(out)
    if not owner:
        raise RequestError(f"{out}: its {RUN} is not of a scoring command: choose another --out")
    if owner != command:
        raise RequestError(
            f"{out}: found {_contents(out)} of `{shown_command(owner)}`; expected a folder of "
            f"`{shown_command(command)}` or none: choose another --out"
        )


def check_table(out: Path) -> None:
    """Raise `RequestError` if a comparison in OUT would replace a table.md that no comparison wrote."""
    if out.exists() and not out.is_dir():
        raise RequestError(f"--out {out}: a file; expected a folder")
    owner = _owner(out) if (out / RUN).is_file() else ""
    if owner in WITH_TABLE:
        raise RequestError(
            f"--out {out}: this is the folder of `{shown_command(owner)}`, whose table.md a comparison would "
            f"replace: choose another folder, e.g. {out / 'compared'}"
        )
    if _compared_before(out):
        return
    for name in COMPARED:
        if (out / name).exists():
            raise RequestError(
                f"--out {out}: a comparison would replace its {name}, which is no comparison's; "
                "choose another folder"
            )


def check_same_comparison(out: Path, runs: Sequence[str]) -> None:
    """Raise `RequestError` if OUT holds a comparison of other runs than these, or of more than these.

    Runs are the paths of what was scored. A comparison of the same runs is replaced.
    """
    before = _compared_before(out).get("runs")
    if not isinstance(before, list):
        return
    now = {Path(run).resolve() for run in runs}
    others = [str(run) for run in before if Path(str(run)).resolve() not in now]
    if others:
        raise RequestError(
            f"--out {out}: found a comparison of other runs, e.g. {others[0]}; choose another folder, "
            "or --force replaces it"
        )


def comparison_files(out: Path) -> list[str]:
    """Names of the files of the comparison that `tuneyard eval compare` wrote into OUT, with its plots."""
    plots = _compared_before(out).get("plots")
    if plots is None:
        return []
    inside = [str(name) for name in plots if (out / str(name)).resolve().is_relative_to(out.resolve())]
    return [*COMPARED, *inside]


def remove_files(out: Path, names: Iterable[str]) -> None:
    """Delete files below OUT, and the folders that they leave empty."""
    for name in names:
        path = out / name
        path.unlink(missing_ok=True)
        if path.parent != out:
            with contextlib.suppress(OSError):  # other files are in the folder
                path.parent.rmdir()


def _owner(out: Path) -> str:
    """Return the module whose command wrote OUT, "" if its run.json is of no scoring command.

    That is the command which scored, unless another one called it: the suite owns the folders of its steps.
    """
    caller = read_object(out / RUN).get(CALLER)
    if isinstance(caller, str):
        return caller
    identity = _read(out)
    if not all(identity[part] for part in PARTS):
        return ""
    command = identity["settings"].get("command")
    return command if isinstance(command, str) else ""


def _contents(out: Path) -> str:
    """Return in words how many scored datasets a results folder holds, at any of its levels."""
    scored = len(list(out.glob(f"**/{RESULTS}")))
    return f"the run and {counted(scored, 'scored dataset')}" if scored else "the run"


def read_identity(out: Path) -> Identity:
    """Return what run.json of a results folder says; `RequestError` where OUT is none."""
    identity = _read(out)
    if not all(identity[part] for part in PARTS):
        raise RequestError(f"{out}: no results folder (it has no {RUN} of a scoring command)")
    _own_folders(out, identity)
    return identity


def begin_run(
    out: Path, identity: Identity, *, force: bool, caller: str = "", summaries: Sequence[str] = ()
) -> None:
    """Write run.json: of a new run, of one begun before (the same), or (force) in place of another.

    `caller` is the module that called the scoring command, if one did. `summaries` are the files that the
    command writes into OUT itself once all is scored: a run that starts anew has none yet.
    `RequestError` names everything in which a run that is resumed differs from the one before.
    """
    before = _read(out)
    if force:  # what run.json lists is deleted, and nothing that somebody else put there
        for folder in _own_folders(out, before):
            shutil.rmtree(folder, ignore_errors=True)
        remove_files(out, [*summaries, *comparison_files(out)])
    else:
        _check_same(out, before, identity)
        identity = {part: {**before[part], **values} for part, values in identity.items()}
    _sweep(out)
    called = {CALLER: caller} if caller else {}
    write_json(out / RUN, {**called, **identity, "tuneyard": version()})


@contextlib.contextmanager
def scoring_run(
    out: Path,
    identity: Identity,
    *,
    force: bool,
    first: bool = True,
    caller: str = "",
    summaries: Sequence[str] = (),
) -> Iterator[None]:
    """Begin a run (the `first` of several processes does) and let it be scored while the context lasts.

    Nothing is left of one that ends in an error of ours before its first prediction was written.
    """
    if first:
        begin_run(out, identity, force=force, caller=caller, summaries=summaries)
    try:
        yield
    except TuneyardError:
        logs = [log for level in ("*/*", f"*/*/{REPEATS}/*") for log in out.glob(f"{level}/{PREDICTIONS}")]
        if not any(log.stat().st_size for log in logs):
            for file in (*logs, out / RUN):
                file.unlink(missing_ok=True)
            folders = {folder for log in logs for folder in log.parents if folder.is_relative_to(out)}
            with contextlib.suppress(OSError):  # a folder that holds somebody else's files stays
                for folder in sorted({*folders, out}, key=lambda folder: -len(folder.parts)):
                    folder.rmdir()
        raise


@contextlib.contextmanager
def suite_run(out: Path, command: str, steps: Sequence[str], *, first: bool) -> Iterator[None]:
    """Mark OUT as the folder of `command`, which runs several scoring commands below it, one each step.

    The `first` of several processes does so. Nothing is left of a run that an error of ours ends before its
    first step has begun.
    """
    if first:
        write_json(out / RUN, {CALLER: command, "steps": list(steps), "tuneyard": version()})
    try:
        yield
    except TuneyardError:
        if not any((out / step / RUN).is_file() for step in steps):
            (out / RUN).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # a folder that holds somebody else's files stays
                out.rmdir()
        raise


class PredictionLog:
    """predictions.jsonl of one model on one set: grows batch by batch, in the data's order at the end."""

    def __init__(
        self,
        folder: Path,
        batches: Sequence[Sequence[int]],
        clusters: Sequence[str] | None = None,
        tidy: bool = True,
    ) -> None:
        """Take up what a former run left: whole batches of the plan count, a torn one is asked again.

        `tidy` drops what does not count, before anybody appends: of several processes one does so. Lines are
        written with their rows' `clusters`, where rows have one.
        """
        self.path = folder / PREDICTIONS
        self.batches, self.clusters = batches, clusters
        if tidy:
            _sweep(folder)
        kept = _whole_batches(self.path, batches)
        self.pending = [list(batch) for batch in batches if not all(row in kept for row in batch)]
        if tidy:
            with atomic(self.path) as file:
                file.writelines(map(_line, kept.values()))

    def append(self, predictions: Iterable[Prediction]) -> None:
        """Add one batch, each prediction with its `row`, in a single write: several processes may do so."""
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        try:
            data = b"".join(map(_line, self._clustered(predictions)))
            while data:
                data = data[os.write(handle, data) :]
        finally:
            os.close(handle)

    def finish(self, others: Iterable[Prediction]) -> list[Prediction]:
        """Write what all processes appended and `others`, which were not, in the data's order; return it."""
        rows = _whole_batches(self.path, self.batches)
        rows.update((_row(line), line) for line in self._clustered(others))
        ordered = [rows[row] for row in sorted(rows)]
        with atomic(self.path) as file:
            file.writelines(map(_line, ordered))
        return ordered

    def _clustered(self, lines: Iterable[Prediction]) -> Iterator[Prediction]:
        clusters = self.clusters
        return ({**line, "cluster": clusters[line["row"]]} if clusters else line for line in lines)


def _sweep(folder: Path) -> None:
    """Drop the temporary files of a write that was killed."""
    for name in (RUN, PREDICTIONS, METRICS, RESULTS):
        for left in folder.glob(f".{name}.*"):
            left.unlink()


def _check_same(out: Path, before: Identity, now: Identity) -> None:
    changed = [
        f"{part} {name}: was {_shown(before[part][name])}, is {_shown(value)}"
        for part, values in now.items()
        for name, value in values.items()
        if name in before[part] and before[part][name] != value
    ]
    if changed:
        raise RequestError(f"{out} cannot be resumed, it was another run: {'; '.join(changed)}")


def _compared_before(out: Path) -> dict[str, Any]:
    """What table.json of a comparison in OUT says, {} without a comparison."""
    try:
        table = read_object(out / TABLE_JSON)
    except (ContentError, OSError):  # no file, or a table of somebody else
        return {}
    if not isinstance(table.get("plots"), list):
        return {}
    return table


def _own_folders(out: Path, before: Identity) -> list[Path]:
    """The folders that run.json lists; `ContentError` if one does not lie right below OUT."""
    folders = [out / model / data for model in before["models"] for data in before["sets"]]
    for folder in folders:
        own = folder.is_relative_to(out) and len(folder.relative_to(out).parts) == 2
        if not own or folder.resolve() != out.resolve() / folder.relative_to(out):
            raise ContentError(f"{out / RUN}: names {folder}, which no run of ours would: remove it by hand")
    return folders


def _whole_batches(path: Path, batches: Sequence[Sequence[int]]) -> dict[int, Prediction]:
    """The predictions in a file by row, those of whole batches."""
    try:
        lines = json_lines(path, growing=True) if path.is_file() else ()
        left = {_row(prediction): prediction for _, prediction in lines}
    except ContentError as error:
        raise ContentError(f"{error}; --force starts anew") from error
    whole = (batch for batch in batches if all(row in left for row in batch))
    return {row: left[row] for batch in whole for row in batch}


def _line(prediction: Prediction) -> bytes:
    return json.dumps(prediction, ensure_ascii=False).encode() + b"\n"


def _row(prediction: Prediction) -> int:
    row = prediction.get("row")
    if not isinstance(row, int):
        raise ContentError(f"{PREDICTIONS}: row {show_value(row)}, expected a number")
    return row


def _read(out: Path) -> Identity:
    """What run.json says, each part {} where there is none."""
    run = read_object(out / RUN) if (out / RUN).is_file() else {}
    parts = ((name, run.get(name)) for name in (*PARTS, "prompts"))
    return {name: part if isinstance(part, dict) else {} for name, part in parts}


def _shown(value: object) -> str:
    text = show_value(value)
    return f"{text[:13]}…" if isinstance(value, str) and len(value) == 64 else text
