"""`tuneyard data view`: build the payload of a dataset, and write its page within the size limit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from tuneyard.compiler.verify.dataset import datasets_of, has_tokenizer, read_settings, require_tokenizer
from tuneyard.compiler.verify.recipe_file import read_recipe_file
from tuneyard.compiler.view.build import LOADER_ERRORS, TOKEN_KEYS, ViewRequest, build
from tuneyard.compiler.view.page import MARK, percentage, render_page
from tuneyard.compiler.view.payload import ViewPayload
from tuneyard.core.cli.next_step import next_step
from tuneyard.core.datasets import REGISTRY, locate_dataset
from tuneyard.core.documents import read_mapping
from tuneyard.core.errors import RequestError, TuneyardError, counted
from tuneyard.core.files import write_text
from tuneyard.core.prompt.token_losses import TOKEN_LOSSES, TokenLossFile
from tuneyard.core.training.training_run import names_in

HEAD = 4096
"""Bytes of a file in which the mark of a page is looked for."""
RECIPES = ("recipes", ".")
"""Folders in which a recipe of the dataset is looked for."""


@dataclass(frozen=True, slots=True)
class ViewOptions:
    """Options of the command. `token_options` are --model and --template by their setting."""

    folder: Path
    recipe: Path | None
    token_options: Mapping[str, str | None]
    out: Path | None
    rows: int
    results: Path | None
    force: bool


def view(name: str, options: ViewOptions) -> None:
    """Write the page of a dataset, and print its counts.

    Without a usable model or template the page has rows without tokens. `RequestError` after writing it if an
    option named the model or the template, and before writing if `out` exists and is no page of this command.
    """
    datasets = datasets_of(name, options.folder)
    dataset = datasets[0]
    out = options.out or Path(f"{dataset}-view.html")
    inputs = [options.folder / REGISTRY, locate_dataset(dataset, options.folder).path]
    if options.recipe:
        inputs.append(options.recipe)
    check_replaceable(out, inputs, force=options.force)
    settings = read_settings(options.recipe, options.token_options)
    reason = ""
    try:
        require_tokenizer(settings, options.token_options)
    except RequestError as error:
        reason = str(error)
    model = settings.get("model_name_or_path")
    if reason or not has_tokenizer(model):
        settings = {key: settings[key] for key in settings if key not in TOKEN_KEYS}
    recipe_file = None
    if options.recipe:
        recipe_file = read_recipe_file(options.recipe, settings)
    losses = None
    if options.results:
        losses = TokenLossFile(find_losses(options.results, dataset))
    payload = build(ViewRequest(dataset, options.folder, settings, recipe_file, options.rows, losses=losses))
    recipe_here = None
    if not payload.model:
        recipe_here = _recipe_here(dataset)
        reason = reason or _no_model(model, options)
        codes = {problem.code for problem in payload.problems}
        if not reason and codes.intersection(LOADER_ERRORS):  # another model would not help
            payload.note = f"no tokens on the page: {payload.note}"
        else:
            payload.note = _without_tokens(reason or payload.note, recipe_here, options)
    write_text(out, render_page(payload))
    if len(datasets) > 1:
        others = ", ".join(datasets[1:])
        click.echo(
            f"{name} has {len(datasets)} datasets. This page has {dataset}; view the others by name: {others}"
        )
    click.echo(_summary(payload))
    next_step(out, _next_command(payload, options, recipe_here))
    if payload.note:
        options_named = any(value is not None for value in options.token_options.values())
        if options_named:
            raise RequestError(f"{payload.note}. The page without tokens: {out}")
        click.echo(payload.note, err=True)


def check_replaceable(out: Path, inputs: Sequence[Path], *, force: bool) -> None:
    """Raise `RequestError` if `out` exists and is no page of this command, unless `force`.

    An input of the command is never replaced.
    """
    for path in inputs:
        if out.resolve() == path.resolve():
            raise RequestError(f"--out {out}: this command reads that file. Name another file for the page")
    if out.is_dir():
        raise RequestError(f"--out {out}: is a folder. Name a file, e.g. {out / 'page.html'}")
    if force or not out.exists():
        return
    with out.open("rb") as file:
        head = file.read(HEAD)
    if MARK.encode() not in head:
        raise RequestError(
            f"--out {out}: this file exists and is not a page of `data view`. Name another file, or replace "
            "it with --force"
        )


def find_losses(results: Path, dataset: str) -> Path:
    """The file of token losses in a folder of results. `RequestError` without one, or with several."""
    if results.is_file():
        return results
    files = sorted(results.rglob(TOKEN_LOSSES))
    of_dataset = [file for file in files if file.parent.name == dataset]
    if of_dataset:
        files = of_dataset
    if not files:
        raise RequestError(
            f"--results {results}: no {TOKEN_LOSSES} in it. Score the dataset with "
            f"`tuneyard eval text --dataset {dataset} --token-losses`"
        )
    if len(files) > 1:
        folders = ", ".join(str(file.parent) for file in files)
        raise RequestError(
            f"--results {results}: {counted(len(files), 'model')} in it. Name one of {folders}"
        )
    return files[0]


def _summary(payload: ViewPayload) -> str:
    """One line on the rows and the tokens of the page."""
    totals = payload.totals
    line = f"{payload.dataset}: {totals.rows_on_page:,} of {counted(totals.rows, 'row')} on the page"
    if totals.tokens:
        share = percentage(totals.learned, totals.tokens)
        line += f", {counted(totals.tokens, 'token')}, {share} learned"
    if totals.left_off_page:
        line += f"; {counted(totals.left_off_page, 'sampled row')} left off to keep the page under 20 MB"
    return line


def _next_command(payload: ViewPayload, options: ViewOptions, recipe_here: Path | None) -> list[str]:
    """The words of the command after this one: a page with tokens by a recipe here, otherwise verify."""
    words = ["tuneyard", "data", "verify", payload.dataset]
    recipe = options.recipe
    if not payload.model and recipe is None and recipe_here:
        words[2] = "view"
        recipe = recipe_here
    if recipe:
        words += ["--recipe", str(recipe)]
    for option, key in (("--model", "model_name_or_path"), ("--template", "template")):
        value = options.token_options.get(key)
        if value is not None and payload.model:
            words += [option, value]
    return [*words, "--dataset-dir", str(options.folder)]


def _no_model(model: object, options: ViewOptions) -> str:
    """Reason why the rows cannot be tokenised without another model folder, "" if there is none."""
    if has_tokenizer(model):
        return ""
    if model is not None:
        return f"{model}, the recipe's model, is no model folder here"
    if options.recipe:
        return "the recipe names no model"
    return "no recipe and no model were given"


def _without_tokens(reason: str, recipe_here: Path | None, options: ViewOptions) -> str:
    """The note of a page without tokens: the reason, and the options that add them."""
    fix = "Give the model's folder and LLaMA-Factory's template: --model DIR --template NAME"
    if recipe_here and not options.recipe:
        fix = f"{recipe_here} trains this dataset: --recipe {recipe_here}. Or {fix[0].lower()}{fix[1:]}"
    return f"no tokens on the page: {reason.rstrip('.')}. {fix}"


def _recipe_here(dataset: str) -> Path | None:
    """The first recipe in `recipes/` or the current folder that trains a dataset."""
    for folder in RECIPES:
        for path in sorted(Path(folder).glob("*.yaml")):
            try:
                settings = read_mapping(path, "recipe")
            except TuneyardError:
                continue
            if dataset in names_in(settings.get("dataset")):
                return path
    return None
