"""`tuneyard data view`: build the payload of a dataset, and write its page within the size limit."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from tuneyard.compiler.verify.dataset import (
    datasets_of,
    require_tokenizer,
)
from tuneyard.compiler.verify.recipe_file import read_settings
from tuneyard.compiler.view.build import build
from tuneyard.compiler.view.page import GENERATOR, render_page, sampled_text, sentence
from tuneyard.core.cli.main import next_step, same_options
from tuneyard.core.datasets import REGISTRY, find_dataset
from tuneyard.core.errors import RequestError
from tuneyard.core.files import check_writable, write_text
from tuneyard.core.files.bounded_reading import open_regular
from tuneyard.core.language.message import _, counted
from tuneyard.core.language.messages import say
from tuneyard.core.llamafactory.prompt.token_losses import TOKEN_LOSSES, TokenLossFile
from tuneyard.core.text.quoting import shell

HEAD = 4096
"""Bytes of a file in which the mark of a page is looked for."""


def view(
    name: str,
    folder: Path,
    token_options: Mapping[str, str | None],
    *,
    recipe: Path | None,
    out: Path | None,
    rows: int,
    results: Path | None,
    force: bool,
) -> None:
    """Write the page of a dataset, and print its counts.

    `token_options` are --model, --template and --media-dir. Without a model the page has rows without
    tokens. `RequestError` if an option or a recipe names a template or a model that cannot be used, or if
    `out` exists and is no page of this command.
    """
    datasets = datasets_of(name, folder)
    dataset = datasets[0]
    out = out or Path(f"{dataset}-view.html")
    inputs = [folder / REGISTRY, find_dataset(dataset, folder).path]
    if recipe:
        inputs.append(recipe)
    check_replaceable(out, inputs, force=force)
    options = dict(token_options)
    media_dir = options.pop("media_dir", None)
    settings, recipe_file = read_settings(recipe, options)
    require_tokenizer(settings, options)
    losses = None
    if results:
        losses = TokenLossFile(find_losses(results, dataset))
    media_folders = []
    if media_dir is not None:
        settings["media_dir"] = media_dir
        media_folders.append(Path(media_dir))
    payload = build(dataset, folder, settings, recipe_file, rows, losses, media_folders)
    if not payload.model:
        payload.note = _("no tokens on the page: {why}", why=payload.note)
    write_text(out, render_page(payload), follows_link=True)
    if len(datasets) > 1:
        others = ", ".join(datasets[1:])
        click.echo(
            _(
                "{name} has {number} datasets. This page has {shown}; view the others by name: {names}",
                name=name,
                number=len(datasets),
                shown=dataset,
                names=others,
            )
        )
    counts, sampled = sentence(payload), sampled_text(payload)
    say(_("{dataset}: {counts} {sampled}", dataset=payload.dataset, counts=counts, sampled=sampled))
    given_again = same_options("--recipe", "--model", "--template", "--dataset-dir")
    if payload.note:
        say(payload.note, to_stderr=True)
    next_step(out, ["tuneyard", "data", "verify", dataset, *given_again])


def check_replaceable(out: Path, inputs: Sequence[Path], *, force: bool) -> None:
    """Raise `RequestError` if `out` exists and is no page of this command, unless `force`.

    An input of the command is never replaced.
    """
    for path in inputs:
        if out.resolve() == path.resolve():
            raise RequestError(
                _("--out {path}: this command reads that file. Name another file for the page", path=out)
            )
    if not out.exists():
        check_writable(out)
        return
    with open_regular(out) as file:
        head = file.read(HEAD)
    if not force and GENERATOR.encode() not in head:
        raise RequestError(
            _(
                "--out {path}: this file exists and is not a page of `data view`. Name "
                "another file, or replace it with --force",
                path=out,
            )
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
            _(
                "--results {results}: no {token_losses} in it. Score the dataset with "
                "`tuneyard eval text --model MODEL --dataset {shell} --token-losses --out "
                "OUT`",
                results=results,
                token_losses=TOKEN_LOSSES,
                shell=shell(dataset),
            )
        )
    if len(files) > 1:
        folders = ", ".join(str(file.parent) for file in files)
        raise RequestError(
            _(
                "--results {path}: {names} in it. Name one of {folders}",
                path=results,
                names=counted(len(files), "model", "models"),
                folders=folders,
            )
        )
    return files[0]
