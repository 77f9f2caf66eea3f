"""Rows with images: where their files are, whether each can be shown, and the model that is shown them.

What cannot be is refused before anything is scored, by its place in the data.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

from tuneyard.core.datasets import REGISTRY
from tuneyard.core.errors import ContentError, RequestError, show_value
from tuneyard.core.files import read_json
from tuneyard.core.images import BROKEN_IMAGE
from tuneyard.core.prompt import Conversation
from tuneyard.core.records import PLACEHOLDERS
from tuneyard.eval.backends.vision import PIXELS
from tuneyard.eval.datasets.dataset import EvalDataset
from tuneyard.eval.datasets.prompts import trained_template, training_settings
from tuneyard.eval.datasets.unsplit import MANIFEST
from tuneyard.eval.scoring.candidates import open_adapters
from tuneyard.eval.scoring.options import ScoringRequest

MARKS = tuple(PLACEHOLDERS.values())


def with_images(request: ScoringRequest, sets: Sequence[EvalDataset], shots: int = 0) -> list[EvalDataset]:
    """Return the sets with the files of their images; sets without any come back as they are.

    Files are looked for below `media_dir` of the adapters' recipes, the folder that the set was compiled
    from, that of dataset_info.json, that of the set's own file, and here. `RequestError` for options that do
    not go with images, `ContentError` for a row or a file that cannot be shown, by its place.
    """
    if not any(_seen(one, request) for one in sets):
        return list(sets)
    folders: list[Path] = []
    if not request.rescore:
        parts = chain.from_iterable(open_adapters(request)[1].values())
        folders = list(dict.fromkeys(part.adapter.folder for part in parts))
        _check_options(request, shots, folders)
    known = [settings for folder in folders if (settings := training_settings(folder))]
    sizes = [{name: one.get(name, size) for name, size in PIXELS.items()} for one in known] or [PIXELS]
    if any(one != sizes[0] for one in sizes):
        raise RequestError(
            f"the adapters were trained on images of different sizes ({' and '.join(map(str, sizes))}): "
            "score each in a run of its own"
        )
    media = [Path(one["media_dir"]) for one in known if isinstance(one.get("media_dir"), str)]
    return [
        replace(_resolved(one, request, media), pixels=sizes[0]) if _seen(one, request) else one
        for one in sets
    ]


def _seen(dataset: EvalDataset, request: ScoringRequest) -> list[Conversation]:
    """The rows that are scored, where any of them has images."""
    rows = dataset.conversations[: request.limit]
    return rows if any(row.images for row in rows) else []


def _check_options(request: ScoringRequest, shots: int, folders: Sequence[Path]) -> None:
    if not request.template:
        trained = next(filter(None, map(trained_template, folders)), "qwen2_vl")
        raise RequestError(
            "rows with images are shown as a template of LLaMA-Factory shows them: name the one of the "
            f"training, such as --template {trained}"
        )
    given = {"--shots": shots, "--batch-tokens": request.batch_tokens, "--quantize": request.quantize}
    for option in (option for option, value in given.items() if value):
        raise RequestError(
            f"{option}: rows with images go through whole weights one by one, without examples: leave it out"
        )


def _resolved(dataset: EvalDataset, request: ScoringRequest, media: Sequence[Path]) -> EvalDataset:
    folders = list(dict.fromkeys([*media, *_folders(dataset.path)]))
    if not any(dataset.answers):
        raise RequestError(f"{dataset.path}: rows with images and no answer: there is no loss to measure")
    images: dict[str, Path] = {}
    for number, row in enumerate(_seen(dataset, request), 1):
        place = f"{dataset.path}: record {number}"
        _check_row(row, place)
        for path in row.images:
            if path not in images:
                images[path] = _found(path, folders, place)
                _check_image(images[path], place)
    files = tuple(dict.fromkeys(images.values()))
    return replace(dataset, images=images, beside=(*dataset.beside, *files))


def _check_row(row: Conversation, place: str) -> None:
    """Refuse a row whose texts have other placeholders than images, and tools beside them."""
    texts = [message["content"] for message in row.messages if message["role"] != "system"]
    found = {mark: sum(text.count(mark) for text in texts) for mark in MARKS}
    for mark, count in found.items():
        due = len(row.images) if mark == MARKS[0] else 0
        if count != due:
            raise ContentError(
                f"{place}: {count} of {mark} in what is asked, and {due} files: expected one for each"
            )
    if marks := [mark for mark in MARKS if mark in row.answer]:
        raise ContentError(f"{place}: {marks[0]} in the answer: expected it in what is asked")
    roles = {message["role"] for message in row.messages} | {row.role}
    if row.images and (row.messages[0].get("tools") or roles & {"function", "observation"}):
        raise ContentError(f"{place}: rows with images and tools are not scored, only either of them")


def _folders(path: Path) -> Iterator[Path]:
    """Yield where the images of a set may lie: the compile's folder, the registry's, its file's, and here."""
    manifest = path.parent / MANIFEST
    found = read_json(manifest) if manifest.is_file() else None
    made = found.get("made_from") if isinstance(found, dict) else None
    if isinstance(made, dict):
        if named := ((made.get("definition") or {}).get("source") or {}).get("media_dir"):
            yield Path(named)
        yield from (Path(source["path"]).parent for source in made.get("sources") or [])
    yield from (folder for folder in path.parents if (folder / REGISTRY).is_file())
    yield path.parent
    yield Path()


def _found(path: str, folders: Sequence[Path], place: str) -> Path:
    for folder in folders:
        with contextlib.suppress(OSError):  # a name that is too long, such as an image as text
            if (folder / path).is_file():
                return folder / path
    looked = ", ".join(map(str, folders))
    raise ContentError(
        f"{place}: {show_value(path)}: no such file below {looked}; put it beside the set's file, or run "
        "where it lies"
    )


def _check_image(path: Path, place: str) -> None:
    from PIL import Image

    try:
        with Image.open(path) as opened:
            opened.load()
    except (*BROKEN_IMAGE, Image.DecompressionBombError) as error:
        raise ContentError(f"{place}: {path}: no image that can be opened: {error}") from error
