"""Compile raw files into datasets that LLaMA-Factory reads."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click

from tuneyard.compiler.engine.request import SEED, CompileReport, CompileRequest
from tuneyard.compiler.rows.problems import KEPT, NO_LIMIT
from tuneyard.compiler.spec.changes import SpecChanges, changed_spec
from tuneyard.compiler.spec.load import load_spec
from tuneyard.core.cli.main import LazyGroup, TuneyardCommand, is_quiet, next_step, same_options
from tuneyard.core.datasets import DEFAULT_FOLDER, registry_folder
from tuneyard.core.datasets.compiled import MANIFEST
from tuneyard.core.errors import (
    ContentError,
    RequestError,
    TuneyardError,
    resumed_by,
    summarise,
)
from tuneyard.core.execution.options import ray_option, workers_option
from tuneyard.core.installation.packages import after_setup
from tuneyard.core.language.message import _, counted, joined, translated, typed
from tuneyard.core.language.messages import print_json, say
from tuneyard.core.text.quoting import one_line

Texts = tuple[str, ...]
CompileOrCheck = Callable[[CompileRequest], CompileReport]
_COUNT = click.IntRange(1)
_FILE = click.Path(path_type=Path, dir_okay=False)
_FOLDER = click.Path(path_type=Path, file_okay=False)
_OUT = click.option(
    "--out",
    "--dataset-dir",
    "out",
    type=_FOLDER,
    default=DEFAULT_FOLDER,
    show_default=True,
    help="The folder of compiled datasets.",
)
_registry = partial(
    click.option,
    type=_FOLDER,
    callback=lambda context, _option, folder: registry_folder(folder, str(context.params.get("name", ""))),
    help="The folder of dataset_info.json.  [default: dataset_info, else data]",
)
_REGISTRY = _registry("--out", "--dataset-dir", "out")
_RECIPE = click.option(
    "--recipe",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Take model, template, stage and cutoff_len from this recipe.",
)
_MODEL = click.option(
    "--model",
    "model_name_or_path",
    metavar="DIR",
    help="A model folder with the tokenizer; weights are not needed.",
)
_TEMPLATE = click.option(
    "--template",
    help="LLaMA-Factory's template (without one: the tokenizer's own chat template).",
)
_SOURCE = click.option(
    "--source",
    "sources",
    multiple=True,
    metavar="[SPLIT=]PATH",
    help="A file or folder, also at s3://…, or hub:owner/name[@revision][:config][:split]; may repeat.",
)
_COLUMN = click.option(
    "--column", "columns", multiple=True, metavar="TARGET=SOURCE", help="What the file calls a column."
)
_TABLE = click.option("--table", default="", metavar="NAME", help="The table of an SQLite database.")
_ALL = click.option("--all", "every", is_flag=True, help="Show every problem or place, not the first 20.")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON, with every problem and place.")
_SPEC = click.argument("name", metavar="NAME|SPEC.yaml")
_SPECS = click.argument("names", metavar="NAME|SPEC.yaml…", nargs=-1, required=True)
_OF_ONE_FILE = ("--source", "--column", "--table", "--split")
"""Options that describe the files of one dataset."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of `compile` and `check`."""

    sources: Texts
    out: Path
    columns: Texts
    table: str
    shares: Texts
    sample: str | None
    limit: int | None
    seed: int | None
    strict: bool
    workers: int | None
    ray: str | None
    every: bool
    as_json: bool
    reject: bool = False
    force: bool = False

    def request(self, name: str) -> CompileRequest:
        """The request of a compile with the spec of this name or path."""
        return CompileRequest(
            spec=changed_spec(name, SpecChanges(self.columns, self.shares, self.table, self.sample)),
            sources=self.sources,
            out=self.out,
            limit=self.limit,
            seed=self.seed,
            reject=self.reject,
            strict=self.strict,
            force=self.force,
            most_problems=NO_LIMIT if self.every or self.as_json else KEPT,
            workers=self.workers,
            ray=self.ray,
        )


cli = LazyGroup(
    "data", examples=("tuneyard data compile demo_rte", "tuneyard data show demo_rte --row 3"), help=__doc__
)


def _command(*tried: str) -> Callable[[Callable[..., None]], click.Command]:
    return cli.command(cls=TuneyardCommand, examples=[f"tuneyard data {each}" for each in tried])


def _print(as_json: bool, report: Callable[[], object], lines: Iterable[str]) -> None:
    """Print a report as JSON, or as lines for people."""
    if as_json:
        print_json(report())
    else:
        for line in lines:
            say(line)


def _common(command: Any) -> Any:
    for option in (
        _SPECS,
        _SOURCE,
        _OUT,
        _COLUMN,
        _TABLE,
        click.option(
            "--split", "shares", multiple=True, metavar="SPLIT=SHARE", help="Another share, as test=0.3."
        ),
        click.option(
            "--sample",
            metavar="SHARE|N",
            help="Train on a drawn share of the rows, as 0.1, or on N of them.",
        ),
        click.option("--limit", type=_COUNT, help="Read only so many rows of each split."),
        click.option(
            "--seed",
            type=int,
            show_default=str(SEED),
            help="For sampling and splitting. Refused if the spec draws no rows with it.",
        ),
        click.option("--strict", is_flag=True, help="Take warnings for errors."),
        ray_option,
        workers_option,
        _ALL,
        _JSON,
    ):
        command = option(command)
    return command


@_command("compile demo_rte", "compile demo_rte --limit 10 --out build/try")
@_common
@click.option(
    "--on-error",
    type=click.Choice(["fail", "reject"]),
    default="fail",
    show_default=True,
    help="A bad row: write nothing, or list it in rejected.jsonl and go on.",
)
@click.option("--force", is_flag=True, help="Compile even what is up to date.")
@resumed_by(lambda: _("what was compiled before is unchanged, and the same command starts again"))
def compile_command(names: Texts, on_error: str, **options: Any) -> None:
    """Compile datasets and register them in dataset_info.json."""
    from tuneyard.compiler.init.recipe_command import next_recipe
    from tuneyard.compiler.publish.compile import compile_dataset

    compile_options = Options(reject=on_error == "reject", **options)
    commands = []
    for spec, datasets in _reports(compile_dataset, names, compile_options):
        if datasets:
            commands.append(["tuneyard", "data", "verify", spec, *same_options("--dataset-dir")])
            commands.append(next_recipe(datasets, compile_options.out))
    if commands:
        following = " && ".join(typed(command) for command in commands if command)
        next_step(None, after_setup(following, "llamafactory"))


@_command("check demo_rte", "check rte --source train=samples/rte/train.jsonl")
@_common
def check_command(names: Texts, **options: Any) -> None:
    """Find every problem that compile would find; nothing is written."""
    from tuneyard.compiler.publish.compile import check_dataset

    _reports(check_dataset, names, Options(**options))
    given_again = same_options(
        "--source",
        "--dataset-dir",
        "--column",
        "--table",
        "--split",
        "--sample",
        "--limit",
        "--seed",
        "--strict",
        "--workers",
        "--ray",
    )
    next_step(None, ["tuneyard", "data", "compile", *names, *given_again])


def _reports(run: CompileOrCheck, names: Texts, options: Options) -> list[tuple[str, list[str]]]:
    """Compile or check datasets one after the other, and print the report of each.

    A failed dataset does not keep the others from being compiled. `ContentError` at the end names those that
    failed, or `RequestError` if no file of any was read.
    """
    if len(names) == 1:
        return [_report(run, names[0], options)]
    of_one_file = same_options(*_OF_ONE_FILE)
    if of_one_file:
        option, value, *_unused = of_one_file
        raise RequestError(
            _(
                "{option} {value}: it is for one dataset, and {count} are named: {names}; "
                "quote a path with spaces, or give each dataset a command of its own",
                option=option,
                value=value,
                count=len(names),
                names=", ".join(names),
            )
        )
    for name in names:
        load_spec(name)  # an unknown name stops the command before the first compile
    reports: list[tuple[str, list[str]]] = []
    errors: dict[str, TuneyardError] = {}
    for name in names:
        try:
            reports.append(_report(run, name, options))
        except TuneyardError as error:
            say(_("error: {message}", message=error), to_stderr=True)
            errors[name] = error
    if errors:
        message = _(
            "{failed} of {total} datasets failed: {names}; each error is above",
            failed=len(errors),
            total=len(names),
            names=", ".join(errors),
        )
        if any(isinstance(error, ContentError) for error in errors.values()):
            raise ContentError(message)
        raise RequestError(message)
    return reports


def _report(run: CompileOrCheck, name: str, options: Options) -> tuple[str, list[str]]:
    """Compile or check a spec, and print the report. `ContentError` if it fails.

    Returns the name of the spec and the registered datasets.
    """
    from tuneyard.compiler.publish.report import counts_line, file_lines, report_as_json, why_failed

    request = options.request(name)
    spec = request.spec
    report = run(request)
    problems = report.problems
    if report.up_to_date:
        warnings = problems.count("W")
        if warnings and not options.as_json:
            location = request.out / report.name / MANIFEST
            say(
                _(
                    "up to date, {warnings}: {place}",
                    warnings=counted(warnings, "warning", "warnings"),
                    place=location,
                ),
                to_stderr=True,
            )
    elif not options.as_json:
        for line in [*problems.notes, *report.unused.lines(report.read), *problems.warning_lines()]:
            say(one_line(translated(line)), to_stderr=True)
        if problems.errors:
            say(summarise(problems.errors, options.every, problems.counts_of("E")), to_stderr=True)
    lines = [counts_line(report)]
    if report.datasets and not report.failed and not is_quiet():  # a check has no files to count
        lines += file_lines(report, request.out)
    _print(options.as_json, partial(report_as_json, report), lines)
    if report.failed:
        reason = why_failed(report, spec.given_as)
        raise ContentError(_("{name}: {reason}", name=report.name, reason=reason))
    return spec.name, [output for output in report.datasets if any(each.dataset for each in spec.outputs)]


@_command("list", "list --out dataset_info")
@_REGISTRY
def list_command(out: Path) -> None:
    """List datasets, compiled ones with their rows and whether they are stale or changed, and specs."""
    from tuneyard.compiler.publish.listing import listing, registered_files
    from tuneyard.compiler.publish.registry import Registry

    registry = Registry(out)
    say(listing(registry))
    command = ["compile", "demo_rte"]
    to_verify = next(iter(registered_files(registry)), "")
    if to_verify:
        command = ["verify", to_verify]
    next_step(None, ["tuneyard", "data", *command, *same_options("--dataset-dir")])


@_command("show demo_rte --row 3", "show demo_rte --row 3 --template qwen")
@_SPEC
@_SOURCE
@_COLUMN
@click.option("--row", type=_COUNT, default=1, show_default=True, help="Which kept row, from 1.")
@click.option("--template", help="Also show the text that a model sees with this LLaMA-Factory template.")
def show_command(name: str, sources: Texts, columns: Texts, row: int, template: str | None) -> None:
    """Show a row on its way: raw, as checked columns, as records, as the text that a model sees.

    Of a registered dataset that no spec of this name makes, show the record.
    """
    from tuneyard.compiler.inspect.trace import ShowRequest, show

    is_registered, texts = show(ShowRequest(name, sources, columns, row, template))
    for title, text in texts:
        click.echo(f"{translated(title)}\n{text}\n")
    command = ["compile", name, *same_options("--source", "--column")]
    if is_registered:
        command = ["view", name]
    next_step(None, ["tuneyard", "data", *command])


@_command(
    "view demo_rte_train --model models/demo-base --template qwen",
    "view demo_rte_train --out results/demo_rte_train.html --rows 100",
)
@click.argument("name")
@_RECIPE
@_MODEL
@_TEMPLATE
@_registry("--dataset-dir", "folder")
@click.option("--out", type=_FILE, help="The page.  [default: NAME-view.html]")
@click.option("--rows", type=_COUNT, default=2000, show_default=True, help="Rows in the sample on the page.")
@click.option(
    "--results",
    type=click.Path(path_type=Path, exists=True),
    help="Colour tokens by their loss: results of `tuneyard eval text --token-losses` for this dataset.",
)
@click.option("--media-dir", type=_FOLDER, help="Folder of the pictures on the page.")
@click.option("--force", is_flag=True, help="Replace a file that is not a page of this command.")
def view_command(
    name: str,
    model_name_or_path: str | None,
    **options: Any,
) -> None:
    """Write a page that shows which tokens of each example are learned, masked or cut."""
    from tuneyard.compiler.view.page import sampled_text, sentence
    from tuneyard.compiler.view.write_page import ViewRequest, write_page

    page = write_page(ViewRequest(name, model=model_name_or_path, **options))
    payload = page.payload
    if page.other_datasets:
        number = len(page.other_datasets) + 1
        say(
            _(
                "{name} has {number} datasets. This page has {shown}; view the others by name: {names}",
                name=name,
                number=number,
                shown=payload.dataset,
                names=", ".join(page.other_datasets),
            )
        )
    counts, sampled = sentence(payload), sampled_text(payload)
    say(_("{dataset}: {counts} {sampled}", dataset=payload.dataset, counts=counts, sampled=sampled))
    if payload.note:
        say(payload.note, to_stderr=True)
    given_again = same_options("--recipe", "--model", "--template", "--dataset-dir")
    next_step(page.path, ["tuneyard", "data", "verify", payload.dataset, *given_again])


@_command(
    "diff demo_rte_train dataset_info/demo_rte/demo_rte-train.json",
    "diff demo_rte_train demo_rte_train --json",
)
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@_REGISTRY
@_ALL
@_JSON
@click.pass_context
def diff_command(ctx: click.Context, first: str, second: str, out: Path, every: bool, as_json: bool) -> None:
    """Compare two datasets, or files of records: examples added, removed, changed; 0 same, 1 different."""
    from tuneyard.compiler.inspect.diff import diff

    difference = diff(first, second, out)
    _print(as_json, difference.as_json, difference.lines(every))
    next_step(None, ["tuneyard", "data", "stats", second, *same_options("--dataset-dir")])
    ctx.exit(int(difference.different))


@_command("stats demo_rte_train --model models/demo-base", "stats demo_rte_eval")
@click.argument("name", metavar="NAME|FILE")
@_REGISTRY
@click.option("--model", type=click.Path(path_type=Path), help="A model folder: count lengths in its tokens.")
@_JSON
def stats_command(name: str, out: Path, model: Path | None, as_json: bool) -> None:
    """Count lengths, labels, languages and duplicates of a dataset."""
    from tuneyard.compiler.inspect.stats import stats

    counts = stats(name, out, model)
    _print(as_json, counts.as_json, counts.lines())
    if Path(name).is_file():
        command = ["tuneyard", "data", "init", name]
    else:
        command = ["tuneyard", "data", "verify", name, *same_options("--dataset-dir", "--model")]
    next_step(None, command)


@_command("compile demo_rte --out build/old", "remove demo_rte --out build/old")
@click.argument("name")
@click.option("--now", is_flag=True, help="Delete it and its earlier compiles: their space is free.")
@_REGISTRY
def remove_command(name: str, now: bool, out: Path) -> None:
    """Unregister a compiled dataset and put its files aside, so that `restore` can bring them back."""
    from tuneyard.compiler.publish.listing import removed
    from tuneyard.compiler.publish.registry import Registry

    if now:
        gone = Registry(out).delete(name) or [name]
        say(_("removed {name}: {names}", name=name, names=", ".join(gone)))
    else:
        say(removed(name, Registry(out).remove(name)))
    next_step(None, ["tuneyard", "data", "list", *same_options("--dataset-dir")])


@_command("compile demo_rte --out build/old", "restore demo_rte --out build/old")
@click.argument("reference", metavar="NAME[@TIME]")
@click.option("--drop", is_flag=True, help="Delete what is kept instead: NAME@TIME, or all of NAME.")
@_REGISTRY
def restore_command(reference: str, drop: bool, out: Path) -> None:
    """Put an earlier compile of a dataset back into its place; what is there now is kept in turn."""
    from tuneyard.compiler.publish.registry import Registry

    registry = Registry(out)
    if drop:
        dropped = registry.drop(reference)
        say(_("deleted {references}", references=joined([each.reference for each in dropped])))
        next_step(None, ["tuneyard", "data", "list", *same_options("--dataset-dir")])
        return
    earlier, current = registry.restore(reference)
    say(_("restored {reference}: {names}", reference=earlier.reference, names=", ".join(earlier.entries)))
    if current:
        say(_("kept {reference}, which was in its place", reference=current.reference))
    datasets = list(earlier.entries)
    command = ["verify", datasets[0]] if datasets else ["list"]
    next_step(out / earlier.name, ["tuneyard", "data", *command, *same_options("--dataset-dir")])


@_command("verify demo_rte --model models/demo-base", "verify demo_mnli_eval --model models/demo-base --json")
@click.argument("name")
@_RECIPE
@_MODEL
@_TEMPLATE
@click.option("--cutoff-len", type=_COUNT, help="Tokens after which LLaMA-Factory cuts a row.")
@_REGISTRY
@_ALL
@_JSON
@workers_option
def verify_command(
    name: str,
    out: Path,
    every: bool,
    as_json: bool,
    model_name_or_path: str | None,
    **options: Any,
) -> None:
    """Load a dataset with LLaMA-Factory's own loader and audit the loss tokens of each example.

    Several processes audit 4 MB or more.
    """
    from tuneyard.compiler.init.recipe_command import next_recipe
    from tuneyard.compiler.verify import report
    from tuneyard.compiler.verify.dataset import VerifyRequest, verify_datasets

    request = VerifyRequest(name, out, model=model_name_or_path, **options)
    failed: list[str] = []
    datasets: list[str] = []
    for verdict in verify_datasets(request):
        datasets.append(verdict.dataset)
        _print(as_json, partial(report.as_json, verdict), report.lines(verdict, every))
        if verdict.failed:
            errors = sum(count for code, count in verdict.counts.items() if code.startswith("E"))
            problems = counted(errors, "problem", "problems")
            failed.append(_("{dataset} has {errors}", dataset=verdict.dataset, errors=problems))
    if failed:
        raise ContentError(_("{failed}. Fix them before training", failed=joined(failed)))
    if request.recipe:
        next_step(None, ["tuneyard", "recipe", "check", request.recipe, *same_options("--model")])
    else:
        next_step(None, next_recipe(datasets, out, request.model))


@_command(
    "init samples/rte/train.jsonl", "init samples/rte/train.jsonl --text premise --label label --split 0.2"
)
@click.argument("file", type=click.Path(readable=False))
@click.option(
    "--text",
    "texts",
    metavar="COLUMN",
    multiple=True,
    help="The column that the model reads. Twice for a pair of texts.",
)
@click.option("--label", metavar="COLUMN", multiple=True, help="The column of the classes to answer with.")
@click.option("--answer", metavar="COLUMN", multiple=True, help="The column of the answers, as free text.")
@click.option(
    "--split",
    "share",
    type=click.FloatRange(0, 1, max_open=True),
    help="The share of rows for test; 0 for no split.  [default: 0.2 from 20 rows on]",
)
@_TABLE
@click.option("--out", type=_FILE, help="Write the spec there, not to stdout.")
def init_command(
    file: str,
    share: float | None,
    out: Path | None,
    texts: Texts,
    table: str,
    **columns: Texts,
) -> None:
    """Look at a file or folder and propose a spec that compiles it: init data.csv --out mine.yaml."""
    from tuneyard.compiler.init.command import FailingSpecError, may_be_proposal, proposal_state, propose
    from tuneyard.compiler.read.inputs import existing_source
    from tuneyard.core.files import write_text

    if len(texts) > 2:
        raise RequestError(
            _("--text is given {number} times, expected one column, or two for a pair", number=len(texts))
        )
    user_columns = dict(zip(("text", "text2"), texts, strict=False))
    for role, names in columns.items():
        if len(names) > 1:
            raise RequestError(
                _("--{option} is given {number} times, expected one column", option=role, number=len(names))
            )
        if names:
            user_columns[role] = names[0]
    if out and out.suffix not in (".yaml", ".yml"):
        raise RequestError(
            _(
                "--out {out}: a spec is a .yaml file: --out {path}.yaml",
                out=out,
                path=out.parent / out.stem,
            )
        )
    if out and out.exists() and not may_be_proposal(out, existing_source(file)):
        raise _existing_spec(out)
    try:
        proposed = propose(existing_source(file), share, out, table, **user_columns)
    except FailingSpecError as error:
        if out is None:  # to be corrected by hand
            click.echo(error.spec, nl=False)
        raise
    if out is None:
        click.echo(proposed.text, nl=False)
    else:
        state = proposal_state(out, proposed)
        if state.kind == "stale":
            raise _existing_spec(out)
        if state.kind == "new":
            write_text(out, proposed.text, follows_link=True)
        else:
            say(_("{path}: up to date", path=out))
    say(proposed.report, to_stderr=True)
    if not is_quiet():
        say(proposed.next_steps, to_stderr=True)


def _existing_spec(out: Path) -> RequestError:
    return RequestError(_("--out {out}: it exists; name another file, or delete it first", out=out))
