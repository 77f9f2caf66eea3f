"""`tuneyard data view`: build the payload of a dataset, and write its page within the size limit."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tuneyard.compiler.verify.dataset import (
    datasets_of,
    require_tokenizer,
)
from tuneyard.compiler.verify.recipe_file import read_settings
from tuneyard.compiler.view.build import build
from tuneyard.compiler.view.page import GENERATOR, render_page
from tuneyard.compiler.view.payload import ViewPayload
from tuneyard.core.datasets import DEFAULT_FOLDER, REGISTRY, find_dataset
from tuneyard.core.errors import RequestError
from tuneyard.core.files import check_writable, write_text
from tuneyard.core.files.bounded_reading import open_regular
from tuneyard.core.language.message import _, counted
from tuneyard.core.llamafactory.prompt.token_losses import TOKEN_LOSSES, TokenLossFile
from tuneyard.core.text.quoting import shell

HEAD = 4096
"""Bytes of a file in which the mark of a page is looked for."""


class ViewRequest(NamedTuple):
    """What a user asks `data view` for.

    - `name`: a compiled dataset, whose first split is viewed, or one registered dataset.
    - `model`, `template`, `media_dir`: None if the user gave none. They replace those of the recipe.
      Without a model the page has rows without tokens.
    - `out`: the page, by default `NAME-view.html`. `rows`: of its sample.
    - `results`: token losses of `eval text --token-losses`, or a folder of results with them.
    """

    name: str
    folder: Path = DEFAULT_FOLDER
    recipe: Path | None = None
    model: str | None = None
    template: str | None = None
    media_dir: Path | None = None
    out: Path | None = None
    rows: int = 2000
    results: Path | None = None
    force: bool = False


class WrittenPage(NamedTuple):
    """A page: its file, what it shows, and the datasets of the same compile that it does not show."""

    path: Path
    payload: ViewPayload
    other_datasets: Sequence[str]


def write_page(request: ViewRequest) -> WrittenPage:
    """Write the page of a dataset.

    `RequestError` if an option or a recipe names a template or a model that cannot be used, or if `out`
    exists and is no page of this command.
    """
    folder = request.folder
    dataset, *other_datasets = datasets_of(request.name, folder)
    out = request.out or Path(f"{dataset}-view.html")
    inputs = [folder / REGISTRY, find_dataset(dataset, folder).path]
    if request.recipe:
        inputs.append(request.recipe)
    check_replaceable(out, inputs, force=request.force)
    options = {"model_name_or_path": request.model, "template": request.template}
    settings, recipe_file = read_settings(request.recipe, options)
    require_tokenizer(settings, options)
    losses = None
    if request.results:
        losses = TokenLossFile(find_losses(request.results, dataset))
    media_folders = []
    if request.media_dir is not None:
        settings["media_dir"] = str(request.media_dir)
        media_folders.append(request.media_dir)
    payload = build(dataset, folder, settings, recipe_file, request.rows, losses, media_folders)
    if not payload.model:
        payload.note = _("no tokens on the page: {why}", why=payload.note)
    write_text(out, render_page(payload), follows_link=True)
    return WrittenPage(out, payload, other_datasets)


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
