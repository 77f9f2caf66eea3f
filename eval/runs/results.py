"""Files of a scoring run, and how an interrupted run resumes.

run.json lists settings, models and datasets. predictions.jsonl grows batch by batch. results.json is written
last: if it exists, the model is done with the dataset. The final files contain no times and no order of
batches. A run that was killed and resumed ends with the same bytes as an uninterrupted one.
"""

import contextlib
import json
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, cast

from tuneyard.core.documents import json_lines
from tuneyard.core.errors import ContentError, RequestError, TuneyardError, show_value, unexpected
from tuneyard.core.execution.state import Input, hashed_outputs
from tuneyard.core.files import (
    append_bytes,
    atomic,
    check_writable,
    is_path,
    read_object,
    write_bytes,
    write_json,
)
from tuneyard.core.files.bounded_reading import open_regular
from tuneyard.core.files.links import refuse_written_link
from tuneyard.core.files.temporaries import TEMPORARY, sweep
from tuneyard.core.installation.checkout import version
from tuneyard.core.language.message import _, counted, joined, relative
from tuneyard.core.llamafactory.prompt.token_losses import TOKEN_LOSSES, TokenLosses, TokenLossFile
from tuneyard.core.records.prediction_record import Prediction
from tuneyard.core.records.record import check_format, lift_file, line_checker, read_record
from tuneyard.core.records.results_record import ResultsRecord
from tuneyard.core.records.run_record import Part, RunIdentity, RunRecord
from tuneyard.core.records.table_record import TableRecord

RUN = "run.json"
PREDICTIONS = "predictions.jsonl"
RESULTS = "results.json"
REPEATS = "repeats.json"  # mean and spread of repeated draws
STEPS = "steps"  # in run.json and table.json of a suite, in run.json of repeated draws
METRICS = "metrics.json"  # of eval.text alone: the figures by the names that others know
TABLE_JSON, TABLE, CHANGED, PAGE = "table.json", "table.md", "changed.jsonl", "report.html"
PAGE_MARK = '<meta name="generator" content="Tuneyard eval compare">'
"""In the head of each report: a page without it is the user's."""
PAGE_HEAD = 1000  # bytes of a page, which have the mark
COMPARED = (TABLE_JSON, TABLE, CHANGED, PAGE)
"""The files of `tuneyard eval compare`, next to its plots."""
PLOTS = "plots"  # in table.json: the names of the plots
RUNS = "runs"  # in table.json: the folders of the scored runs
PARTS: tuple[Part, ...] = ("settings", "models", "prompts", "datasets")  # in run.json
OF_ALL_RUNS: tuple[Part, ...] = ("settings", "models", "datasets")  # earlier versions wrote no prompts
INPUTS, OUTPUTS = "inputs", "outputs"
"""What a result depends on, and the hash of each of its files: in run.json, table.json and prove.json."""
SHOTS_OF = "shots of "  # a setting of one dataset, which may be added with it
DAY = "date"  # the setting of prompts that contain a date, which may be added with a model
BASE = "base"  # the name of the model without adapters
HELD_OUT = "held-out"
"""Folder in that of a sweep: the scoring run on the halves that do not choose."""
OUT_OPTION = r" --out[ =]('[^']*'|\S+)"
"""--out in a command line, as a regular expression."""
UNMERGED, MERGED = "unmerged", "merged"
Results = Mapping[str, Any]
"""The content of results.json with the command's own figures, or a part of it."""

NO_INPUTS: Mapping[str, Input] = MappingProxyType({})
NO_OUTPUTS: Mapping[str, str] = MappingProxyType({})


class CommandResult(NamedTuple):
    """Where the result of a command is, and the words of the next command.

    `is_current`: it was there already, from the same inputs, so that nothing was written.
    """

    place: Path
    next_command: Sequence[str] = ()
    is_current: bool = False


class WrittenFiles(NamedTuple):
    """What a JSON file in OUT lists: the scored runs that its command read, and files next to it.

    `is_of_suite`: a suite wrote it.
    """

    runs: Sequence[str] = ()
    files: Sequence[str] = ()
    is_of_suite: bool = False


def part_of(facts: Mapping[str, object], name: str) -> Mapping[str, Any]:
    """An object in another tool's record by its name, {} if it is missing."""
    part = facts.get(name)
    if isinstance(part, Mapping):
        return part
    return {}


def shown_command(module: str) -> str:
    """Command line of a scoring module: `eval.nli` is `tuneyard eval nli`."""
    return f"tuneyard {module.replace('.', ' ')}"


def check_folder(out: Path, command: str, *, resume: bool, force: bool) -> None:
    """Refuse a folder OUT that `command` (a module such as `eval.nli`) must not write into.

    Raises `RequestError` if OUT contains anything but a run of the same command, because scoring would
    delete it.
    """
    if resume and force:
        raise RequestError(_("--resume resumes and --force starts anew: give one of them"))
    check_writable(out)
    if out.exists():
        _check_owner(out, command)


def _check_owner(out: Path, command: str) -> None:
    """Raise `RequestError` unless OUT is empty or contains a run of `command`."""
    if not (out / RUN).is_file():
        if any(not TEMPORARY.fullmatch(path.name) for path in out.iterdir()):
            raise RequestError(
                _("{path}: no results folder (it has no {file}): choose another --out", path=out, file=RUN)
            )
        return
    owner = _owner(out)
    if not owner:
        raise RequestError(
            _("{path}: its {file} is not of a scoring command: choose another --out", path=out, file=RUN)
        )
    if owner != command:
        content = _("the run")
        scored = len(list(out.glob(f"**/{RESULTS}")))
        if scored:
            content = _(
                "the run and {datasets}", datasets=counted(scored, "scored dataset", "scored datasets")
            )
        raise RequestError(
            _(
                "{path}: found {content} of `{command}`; expected a folder of `{other}` or none: "
                "choose another --out",
                path=out,
                content=content,
                command=shown_command(owner),
                other=shown_command(command),
            )
        )


def check_files(out: Path, names: Sequence[str], mark: str) -> None:
    """Raise `RequestError` if OUT cannot be written, is an adapter, or the results of a model.

    So it does for files of these names by another command. The first name is of JSON, in which the command
    writes the list `mark`. A comparison that was interrupted before its table.json is replaced.
    """
    check_writable(out)
    if any(out.glob(f"*/{RESULTS}")) or (out / "adapter_config.json").exists():
        raise RequestError(
            _("--out {path}: an adapter, or the results of a model; choose another folder", path=out)
        )
    before = _written_before(out / names[0], mark)
    if before is not None and not before.is_of_suite:
        return
    if PAGE in names and is_unfinished_comparison(out):
        return
    for name in names:
        if (out / name).exists():
            raise RequestError(
                _(
                    "--out {path}: {name} would be replaced, which is not by this command; choose "
                    "another folder",
                    path=out,
                    name=name,
                )
            )


def is_unfinished_comparison(out: Path) -> bool:
    """True for a report of `eval compare` without table.json, which comes last, unless OUT is a suite's."""
    page = out / PAGE
    if (out / TABLE_JSON).exists() or page.is_symlink() or not page.is_file() or STEPS in read_run(out):
        return False
    with open_regular(page) as file:
        return PAGE_MARK.encode() in file.read(PAGE_HEAD)


def replaced_files(out: Path, runs: Sequence[str], *, force: bool) -> list[str]:
    """Names of the files of the comparison in OUT, with its plots, which a comparison of `runs` replaces.

    `runs` are paths of scored runs. `RequestError` if the comparison in OUT has other ones, unless `force`.
    """
    before = _written_before(out / TABLE_JSON, PLOTS)
    if before is None:
        return []
    now = {Path(run).resolve() for run in runs}
    others = [run for run in before.runs if Path(run).resolve() not in now]
    if others and not force:
        raise RequestError(
            _(
                "--out {path}: found a comparison of other runs, e.g. {run}; choose another folder, "
                "or --force replaces it",
                path=out,
                run=others[0],
            )
        )
    return [*COMPARED, *before.files]


def remove_files(out: Path, names: Iterable[str]) -> None:
    """Delete files below OUT, and the folders that they leave empty. Links and paths outside of OUT stay."""
    for name in names:
        path = out / name
        if not path.is_file() or path.is_symlink() or not path.resolve().is_relative_to(out.resolve()):
            continue
        path.unlink()
        if path.parent != out:
            with contextlib.suppress(OSError):  # other files are in the folder
                path.parent.rmdir()


def _owner(out: Path) -> str:
    """Module of the command that wrote OUT. "" if its run.json is not of a scoring command.

    The suite owns the folders of its steps: the caller of a scoring command comes first.
    """
    run = read_run(out)
    if "by" in run:
        return run["by"]
    command = None
    if all(run[part] for part in OF_ALL_RUNS):
        command = run["settings"].get("command")
    return command if isinstance(command, str) else ""


def read_identity(out: Path) -> RunIdentity:
    """Read settings, models and datasets of a run. `RequestError` if OUT is not a results folder."""
    run = read_run(out)
    if not all(run[part] for part in OF_ALL_RUNS):
        raise RequestError(
            _(
                "{path}: no results folder (it has no {file} of a scoring command); name the --out of one",
                path=out,
                file=RUN,
            )
        )
    own_folders(out, run)
    return identity_of(run)


def identity_of(run: RunIdentity) -> RunIdentity:
    """The identity alone of a run."""
    return {
        "settings": run["settings"],
        "models": run["models"],
        "prompts": run["prompts"],
        "datasets": run["datasets"],
    }


def read_lines(path: Path, *, growing: bool = False) -> dict[int, Prediction]:
    """The lines of predictions.jsonl by row. `ContentError` for a line without a row of its own."""
    check = line_checker(Prediction)
    lines: dict[int, Prediction] = {}
    for number, fields in json_lines(path, growing=growing):
        place = f"{relative(path)}:{number}"
        check(fields, place)
        line = cast(Prediction, fields)
        if line["row"] in lines:
            raise unexpected(place, "row", line["row"], _("a number that no other line has"))
        lines[line["row"]] = line
    return lines


def begin_scoring_run(
    out: Path,
    identity: RunIdentity,
    *,
    force: bool,
    caller: str = "",
    summaries: Sequence[str] = (),
    inputs: Mapping[str, Input] = NO_INPUTS,
) -> None:
    """Write run.json for a new run or a resumed one, or replace another run (`force`).

    `caller` is the module that called the scoring command, if one did. `summaries` are the files that the
    command writes into OUT after all scoring. `force` deletes them. `inputs` are what the results depend on;
    a resumed run keeps those of its beginning. `RequestError` lists every difference between a resumed run
    and the one before.
    """
    before = read_run(out)
    records: RunRecord = {"format": 2, "inputs": dict(inputs)}
    if force:  # delete only folders that run.json lists, no files of somebody else
        held_out = out / HELD_OUT
        for folder in (*own_folders(out, before), *own_folders(held_out, read_run(held_out))):
            shutil.rmtree(folder, ignore_errors=True)
        listed = [*before.get("files", []), *summaries]
        remove_files(out, [*listed, *replaced_files(out, [], force=True), f"{HELD_OUT}/{RUN}"])
    else:
        check_same(out, before, identity)
        of_both: RunIdentity = {}
        for part in PARTS:
            if part in identity:
                of_both[part] = {**before[part], **identity[part]}
        identity = of_both
        records["inputs"] = {**inputs, **before.get("inputs", {})}
        if "outputs" in before:
            records["outputs"] = before["outputs"]
    for model in identity["models"]:
        refuse_written_link(out / model)
        for dataset in identity["datasets"]:
            refuse_written_link(out / model / dataset)
            sweep(out / model / dataset)
            lift_file(out / model / dataset / RESULTS, ResultsRecord)
    run: RunRecord = {"format": 2}
    if caller:
        run["by"] = caller
    run = {**run, **identity}
    if summaries:
        run["files"] = list(summaries)
    run["tuneyard"] = version()
    write_json(out / RUN, {**run, **records})


def end_run(out: Path, scored: Collection[Path] = (), names: Iterable[str] = ()) -> None:
    """Record the hash of each file of a run that is scored, so that an edited one is noticed.

    `scored` are the folders MODEL/DATASET that were scored now. Files of the others keep their hashes.
    `names` are files next to the models, besides those that run.json lists.
    """
    run = read_record(out / RUN, RunRecord)
    outputs: dict[str, str] = {}
    for folder in own_folders(out, read_run(out)):
        files = [path for path in folder.rglob("*") if path.is_file() and not TEMPORARY.fullmatch(path.name)]
        outputs |= hashed_outputs(out, [str(path.relative_to(out)) for path in sorted(files)])
    for name, digest in run.get("outputs", {}).items():
        if not any((out / name).is_relative_to(folder) for folder in scored):
            outputs[name] = digest
    summaries = [*names, *run.get("files", [])]
    outputs |= hashed_outputs(out, [name for name in summaries if (out / name).is_file()])
    write_json(out / RUN, {**run, "outputs": outputs})


def recorded_inputs(record: Mapping[str, object]) -> dict[str, Input]:
    """The inputs in a record, {} if it has none."""
    inputs = record.get(INPUTS)
    return dict(inputs) if isinstance(inputs, dict) else {}


def recorded_outputs(record: Mapping[str, object]) -> dict[str, str]:
    """The hash of each file in a record by its path, {} if it has none."""
    outputs = record.get(OUTPUTS)
    if not isinstance(outputs, dict):
        return {}
    return {name: str(digest) for name, digest in outputs.items()}


def begin_suite_run(out: Path, command: str, steps: Sequence[str]) -> None:
    """Mark OUT as the folder of `command`, which runs one scoring command below it for each step."""
    run: RunRecord = {"format": 2, "by": command, "steps": list(steps), "tuneyard": version()}
    write_json(out / RUN, run)


@contextlib.contextmanager
def undone_without_predictions(out: Path) -> Iterator[None]:
    """Context manager of a run that has begun in OUT.

    If a `TuneyardError` ends the run before its first prediction, its files are deleted.
    """
    try:
        yield
    except TuneyardError:
        if any(log.stat().st_size for log in out.rglob(PREDICTIONS)):
            raise
        for path in sorted([out, *out.rglob("*")], reverse=True):  # files before their folders
            if path.name in (PREDICTIONS, TOKEN_LOSSES, RUN):
                path.unlink()
            elif path.is_dir():
                with contextlib.suppress(OSError):  # somebody else's files are in it
                    path.rmdir()
        raise


class PredictionLog:
    """predictions.jsonl of one model on one dataset. It grows by batches; `finish` sorts it by row."""

    def __init__(
        self,
        folder: Path,
        batches: Sequence[Sequence[int]],
        record_numbers: Sequence[int] = (),
    ) -> None:
        """Resume an interrupted run: keep complete batches of the plan, and score incomplete ones again.

        `record_numbers` is each row's number in the dataset's file, if token_losses.jsonl grows with the
        predictions.
        """
        self.path = folder / PREDICTIONS
        self.batches, self.record_numbers = batches, record_numbers
        self.token_losses = folder / TOKEN_LOSSES if record_numbers else None
        measured = batches
        if self.token_losses is not None:
            with_losses = _sort_losses(self.token_losses)
            rows = {row for row, number in enumerate(record_numbers) if number in with_losses}
            measured = [batch for batch in batches if rows.issuperset(batch)]
        kept = _whole_batches(self.path, measured)
        self.refused = {row: str(line["refused"]) for row, line in kept.items() if "refused" in line}
        """Why the server refused a row, by row."""
        self.pending = [list(batch) for batch in batches if not all(row in kept for row in batch)]
        with atomic(self.path) as file:
            file.writelines(map(_line, kept.values()))

    def append(self, predictions: Iterable[Prediction], fields_by_row: Mapping[int, Results]) -> None:
        """Append one batch in a single write.

        The losses of its tokens, in the fields of the scorer, are written first: a batch with predictions
        has them.
        """
        if self.token_losses is not None:
            lines = []
            for row, fields in fields_by_row.items():
                losses = TokenLosses(self.record_numbers[row], fields["ids"], fields["token_losses"])
                lines.append(losses.line())
            append_bytes(self.token_losses, b"".join(lines))
        append_bytes(self.path, b"".join(map(_line, predictions)))
        for row, fields in fields_by_row.items():
            if "refused" in fields:
                self.refused[row] = fields["refused"]

    def finish(self, others: Iterable[Prediction]) -> list[Prediction]:
        """Sort the predictions and `others` by row, and write them."""
        if self.token_losses is not None:
            _sort_losses(self.token_losses)
        rows = _whole_batches(self.path, self.batches)
        rows.update((line["row"], line) for line in others)
        ordered = [rows[row] for row in sorted(rows)]
        with atomic(self.path) as file:
            file.writelines(map(_line, ordered))
        return ordered


def _sort_losses(path: Path) -> set[int]:
    """Write token_losses.jsonl in the order of its rows, each once, without a torn last line. Its rows.

    The losses stay on disk: memory holds the places of the rows.
    """
    if not path.exists():
        write_bytes(path, b"")
    written = TokenLossFile(path, growing=True)
    with atomic(path) as file:
        for row in written.rows:
            losses = written.read(row)
            if losses:
                file.write(losses.line())
    return set(written.rows)


def check_same(out: Path, before: RunIdentity, now: RunIdentity) -> None:
    """Raise `RequestError` if a run has other settings. Models and datasets may be added, not changed."""
    changed: list[str] = []
    for part in PARTS:
        kept, values = before.get(part, {}), now.get(part, {})
        names = [name for name in values if name in kept]
        if part == "settings" and kept:
            names = [name for name in kept | values if name in names or not _is_added(name)]
        for name in names:
            if kept.get(name) != values.get(name):
                was, now_is = show_value(kept.get(name)), show_value(values.get(name))
                changed.append(
                    _("{part} {name}: was {was}, is {now_is}", part=part, name=name, was=was, now_is=now_is)
                )
    if changed:
        raise RequestError(
            _(
                "{path}: --resume needs the settings of the run that is there; changed: {changed}; "
                "--force starts anew",
                path=out,
                changed=joined(changed, _("; ")),
            )
        )


def _is_added(setting: str) -> bool:
    """True for a setting that comes with a dataset or a model which is added to a run."""
    return setting == DAY or setting.startswith(SHOTS_OF)


def kept_day(out: Path) -> date | None:
    """The date in the prompts of a run, or of the steps of a suite; None if they have none.

    `ContentError` for one that is no date.
    """
    for file in (out / RUN, *sorted(out.glob(f"*/{RUN}"))):
        text = read_run(file.parent)["settings"].get(DAY)
        if text is None:
            continue
        try:
            return date.fromisoformat(text)
        except (TypeError, ValueError) as error:
            raise unexpected(relative(file), DAY, text, _("a date such as 2026-01-31")) from error
    return None


def _written_before(path: Path, mark: str) -> WrittenFiles | None:
    """Read a JSON object that has the list `mark`, and paths as its `runs`. None without such a file."""
    try:
        before = read_object(path)
    except (ContentError, OSError):  # no file, or one of somebody else
        return None
    files, runs = before.get(mark), before.get(RUNS, [])
    if not isinstance(files, list) or not isinstance(runs, list) or not all(map(is_path, runs)):
        return None
    if path.name == TABLE_JSON:
        check_format(before, path, TableRecord)
    return WrittenFiles(runs, list(map(str, files)), STEPS in before)


def own_folders(out: Path, before: RunIdentity) -> list[Path]:
    """Folders that run.json lists, OUT/MODEL/DATASET. `ContentError` if one is anywhere else."""
    folders = [out / model / data for model in before["models"] for data in before["datasets"]]
    for folder in folders:
        if folder.resolve().parent.parent != out.resolve():
            raise ContentError(
                _(
                    "{path}: names {folder}, which no run of ours would: remove it by hand",
                    path=out / RUN,
                    folder=folder,
                )
            )
    return folders


def _whole_batches(path: Path, batches: Sequence[Sequence[int]]) -> dict[int, Prediction]:
    """Predictions of complete batches in a file, by row."""
    if not path.is_file():
        return {}
    try:
        predictions = read_lines(path, growing=True)
    except ContentError as error:
        raise ContentError(_("{error}; --force starts anew", error=error)) from error
    complete = {}
    for batch in batches:
        if all(row in predictions for row in batch):
            for row in batch:
                complete[row] = predictions[row]
    return complete


def _line(prediction: Prediction) -> bytes:
    return json.dumps(prediction, ensure_ascii=False).encode() + b"\n"


def read_run(out: Path) -> RunRecord:
    """Read run.json. A missing part is {}."""
    run: RunRecord = {"format": 2}
    if (out / RUN).is_file():
        run = read_record(out / RUN, RunRecord)
    for part in PARTS:
        run.setdefault(part, {})
    return run
