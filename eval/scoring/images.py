"""Rows with images: find the files and check them before anything is scored.

Problems are reported by their place in the data.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

from tuneyard.core.datasets import REGISTRY
from tuneyard.core.datasets.compiled import read_manifest
from tuneyard.core.errors import ContentError, RequestError, show_value
from tuneyard.core.language.message import _, joined, relative
from tuneyard.core.llamafactory.prompt import PromptAndAnswer
from tuneyard.core.records import PLACEHOLDERS
from tuneyard.core.records.images import BROKEN_IMAGE, FORMAT_NAMES, open_image
from tuneyard.core.training.training_run import training_settings
from tuneyard.eval.data.dataset import EvalDataset, digest_of
from tuneyard.eval.data.prompts import trained_template
from tuneyard.eval.models.vision import PIXELS
from tuneyard.eval.scoring.candidates import open_adapters
from tuneyard.eval.scoring.request import ScoringRequest

MARKS = tuple(PLACEHOLDERS.values())


def with_images(request: ScoringRequest, datasets: Sequence[EvalDataset], shots: int) -> list[EvalDataset]:
    """Add the files of their images to the datasets. Datasets without images stay as they are.

    Folders are searched in this order: `media_dir` of the adapters' recipes, the source folder of the
    compile, the folder of dataset_info.json, the folder of the dataset's file, the current folder.
    `RequestError` for options that do not go with images, `ContentError` for a bad row or file.
    """
    adapter_folders: list[Path] = []
    if not request.rescore:
        weighted_adapters = chain.from_iterable(open_adapters(request)[1].values())
        adapter_folders = list(dict.fromkeys(weighted.adapter.folder for weighted in weighted_adapters))
        _check_options(request, shots, adapter_folders)
    trainings = [training_settings(folder) for folder in adapter_folders]
    sizes = []
    media_folders = []
    for settings in filter(None, trainings):
        sizes.append({name: settings.get(name, size) for name, size in PIXELS.items()})
        if isinstance(settings.get("media_dir"), str):
            media_folders.append(Path(settings["media_dir"]))
    if not sizes:
        sizes.append(PIXELS)
    if any(size != sizes[0] for size in sizes):
        raise RequestError(
            _(
                "the adapters were trained on images of different sizes ({names}): score each in a "
                "run of its own",
                names=joined(map(str, sizes), _(" and ")),
            )
        )
    checked = []
    for dataset in datasets:
        if any(row.images for row in dataset.conversations[: request.limit]):
            dataset = replace(_with_files(dataset, request, media_folders), pixels=sizes[0])
        checked.append(dataset)
    return checked


def _check_options(request: ScoringRequest, shots: int, adapter_folders: Sequence[Path]) -> None:
    if not request.template:
        templates = [trained_template(folder) for folder in adapter_folders]
        template = next(filter(None, templates), "qwen2_vl")
        raise RequestError(
            _(
                "rows with images are shown as a template of LLaMA-Factory shows them: name the one "
                "of the training, such as --template {name}",
                name=template,
            )
        )
    values = {"--shots": shots, "--batch-tokens": request.batch_tokens, "--quantize": request.quantize}
    for option, value in values.items():
        if value:
            raise RequestError(
                _(
                    "{option}: rows with images go through whole weights one by one, without examples: "
                    "leave it out",
                    option=option,
                )
            )


def _with_files(dataset: EvalDataset, request: ScoringRequest, media_folders: Sequence[Path]) -> EvalDataset:
    folders = list(dict.fromkeys([*media_folders, *_folders(dataset.path)]))
    if not any(dataset.answers):
        raise RequestError(
            _("{path}: rows with images and no answer: there is no loss to measure", path=dataset.path)
        )
    images: dict[str, Path] = {}
    files: list[Path] = []
    for row, example in enumerate(dataset.conversations[: request.limit]):
        place = dataset.place(row)
        _check_row(example, place)
        for path in example.images:
            if path not in images:
                file = _find_image(path, folders, place)
                _check_image(file, place)
                files.append(file)  # links to one file are several in the hash of the data
                images[path] = file.resolve()  # a worker may run in another folder
    return replace(dataset, images=images, digest=digest_of(dataset.path, *dict.fromkeys(files)))


def _check_row(row: PromptAndAnswer, place: str) -> None:
    """Refuse placeholders that do not match the files, and images together with tools."""
    prompt = "\n".join(message["content"] for message in row.messages if message["role"] != "system")
    for mark in MARKS:
        count = prompt.count(mark)
        files = len(row.images) if mark == MARKS[0] else 0
        if count != files:
            raise ContentError(
                _(
                    "{place}: {count} of {mark} in the prompt, and {files} files: expected one for each",
                    place=place,
                    count=count,
                    mark=mark,
                    files=files,
                )
            )
        if mark in row.answer:
            raise ContentError(
                _("{place}: {mark} in the answer: expected it in the prompt", place=place, mark=mark)
            )
    roles = {message["role"] for message in row.messages} | {row.role}
    if row.images and (row.messages[0].get("tools") or roles & {"function", "observation"}):
        raise ContentError(
            _("{place}: rows with images and tools are not scored, only either of them", place=place)
        )


def _folders(path: Path) -> Iterator[Path]:
    """Folders that may contain a dataset's images, the most likely first."""
    manifest = read_manifest(path.parent)
    if manifest is not None:
        yield from manifest.media_folders
    for folder in path.parents:
        if (folder / REGISTRY).is_file():
            yield folder
    yield path.parent
    yield Path()


def _find_image(path: str, folders: Sequence[Path], place: str) -> Path:
    for folder in folders:
        with contextlib.suppress(OSError):  # a name that is too long, such as an image as text
            if (folder / path).is_file():
                return folder / path
    searched = joined(map(relative, folders))
    raise ContentError(
        _(
            "{place}: {path}: no such file below {folder}; put it next to the dataset's file, or "
            "run the command in its folder",
            place=place,
            path=show_value(path),
            folder=searched,
        )
    )


def _check_image(path: Path, place: str) -> None:
    from PIL import Image

    try:
        with open_image(path) as opened:
            opened.load()
    except (*BROKEN_IMAGE, Image.DecompressionBombError) as error:
        raise ContentError(
            _(
                "{place}: {path}: not an image that can be opened: {error}; expected {format_names}",
                place=place,
                path=path,
                error=error,
                format_names=FORMAT_NAMES,
            )
        ) from error
