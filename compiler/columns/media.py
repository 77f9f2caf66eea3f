"""Images, videos and audios of a row: files named by path, one for each placeholder in its texts.

LLaMA-Factory 0.9.5 looks for them below its `media_dir` and refuses a row that names more or fewer than its
messages have placeholders (data/mm_plugin.py); it opens them only while it trains.
"""

from collections.abc import Iterator
from functools import cache
from itertools import zip_longest
from pathlib import Path, PurePath
from typing import Any

from tuneyard.compiler.chat.message_forms import USER
from tuneyard.compiler.columns.turns import Conversation
from tuneyard.compiler.rows import Fields
from tuneyard.compiler.spec.column_types import PROMPT, Beside, ColumnReader, ColumnType, LoadedRow, Row
from tuneyard.compiler.spec.model import placeholders
from tuneyard.core.datasets.column_meanings import USUAL_NAMES
from tuneyard.core.errors import show_value
from tuneyard.core.errors.problem_codes import ProblemCode
from tuneyard.core.files import is_file
from tuneyard.core.language.message import _
from tuneyard.core.records import PLACEHOLDERS, Example
from tuneyard.core.records.calls import WrongValueError
from tuneyard.core.records.images import BROKEN_IMAGE, FORMAT_NAMES, open_image

UNUSABLE_MEDIA = ProblemCode(
    "E110",
    _("an image, video or audio that cannot be used"),
    _("Correct the path (`source.media_dir`), the file, or the number of placeholders."),
)


BLANK = '""'
LONGEST_PATH = 200  # characters of a path in a message: it may be a whole picture in base64


class MediaReader(ColumnReader):
    """Reads paths of images, videos or audios.

    Files are below the spec's `media_dir`, or next to the source file.
    """

    checks_rows = True

    def prepare(self) -> None:
        """Find the folder of the files, and the texts with their placeholders."""
        spec = self.spec
        self.folder = Path(spec.source.media_dir or Path(self.file.display_path).parent)
        self.conversation_column = spec.conversation_column
        asking, output = ("instruction", "input", "user"), spec.outputs[0]
        self.prompt_columns = output.columns_of(*asking)
        templates = "".join(output.templates.get(key, "") for key in asking)
        self.literal = "".join(text for text, _unused in placeholders(templates))

    def read(self, value: Any) -> list[str]:
        """The paths in a cell, which is one text or a list; `WrongValueError` names the one that is wrong."""
        paths: list[Any] = [value] if isinstance(value, str) and value else value or []
        for path in paths:
            if not isinstance(path, str) or not path.strip():
                raise WrongValueError(_("found {path}, expected the path of a file", path=show_value(path)))
            if ".." in PurePath(path).parts:
                raise WrongValueError(
                    _("{path}: leads out of the folder; expected a path below it", path=path)
                )
            if "://" in path or path.startswith("data:"):
                raise WrongValueError(
                    _("found {path}, expected the path of a file: save it as one", path=show_value(path))
                )
            refuse_unusable(self.folder / path, self.column.type is IMAGES)
        return paths

    def check_row(self, row: Row) -> Fields:
        """Put placeholders before the first question if the row has none.

        `WrongValueError` if there are more or fewer of them than files.
        """
        paths: list[str] = row[self.column.name]
        column_type = self.column.type
        placeholder = column_type.placeholder()
        conversation: Conversation = row[self.conversation_column] if self.conversation_column else []
        in_messages = (
            [path for message in conversation for path in message.images] if column_type is IMAGES else []
        )
        if in_messages:
            if paths and paths != in_messages:
                raise WrongValueError(
                    _(
                        "found images in the turns ({image}) and others beside them",
                        image=show_value(in_messages[0]),
                    )
                )
            paths = self.read(in_messages)
        texts = [message.text for message in conversation] or [
            self.literal,
            *(str(row[name]) for name in self.prompt_columns),
        ]
        count = sum(text.count(placeholder) for text in texts)
        if count == len(paths):
            return {self.column.name: paths}
        if count:
            raise WrongValueError(
                _(
                    "{count} of {placeholder} in the texts, and {number} {name}: expected one for each",
                    count=count,
                    placeholder=placeholder,
                    number=len(paths),
                    name=column_type.name,
                )
            )
        placeholders = placeholder * len(paths)
        if not self.conversation_column:
            return {self.prompt_columns[0]: f"{placeholders}{row[self.prompt_columns[0]]}"}
        first = next(number for number, message in enumerate(conversation) if message.role == USER)
        question = conversation[first]._replace(text=placeholders + conversation[first].text)
        return {self.conversation_column: [*conversation[:first], question, *conversation[first + 1 :]]}

    def notes(self) -> list[str]:
        """Where the files are, for the recipe."""
        return [_("media are looked for in {path}: a recipe names it as media_dir", path=self.folder)]


_PATHS = {
    "description": _("a list of paths, or one as text"),
    "type": ["string", "array", "null"],
    "items": {"type": "string"},
}


class MediaType(ColumnType):
    """Files that LLaMA-Factory reads next to messages.

    Beside paths it takes what other tools write: an image as `{"bytes": …, "path": …}`, as `datasets` stores
    it, and a video as the list of its frames (data/mm_plugin.py).
    """

    def placeholder(self) -> str:
        """The placeholder of LLaMA-Factory, such as `<image>`."""
        return PLACEHOLDERS[self.registry_key]

    def loaded_pairs(self, example: Example, loaded: LoadedRow) -> Iterator[tuple[object, object]]:
        """Yield the media that differ. The loader puts media_dir before the paths of files that it finds."""
        of_file = example.media.get(self.registry_key, ())
        for medium, loaded_medium in zip_longest(of_file, loaded[self.loaded_column] or (), fillvalue=""):
            if not _is_same(medium, loaded_medium):
                yield medium, loaded_medium

    def unusable(self, loaded: LoadedRow) -> str:
        """The first medium that is neither a path nor in another form that LLaMA-Factory opens."""
        for medium in loaded[self.loaded_column] or ():
            if self.registry_key == "videos" and isinstance(medium, list):
                fault = next(filter(None, map(_image_fault, medium)), "")
            elif self.registry_key == "images":
                fault = _image_fault(medium)
            elif isinstance(medium, str):
                fault = ""
            else:
                expected = _("a path, or a list of frames") if self.registry_key == "videos" else _("a path")
                fault = _("found {value}, expected {expected}", value=show_value(medium), expected=expected)
            if fault:
                return fault
        return ""

    def miscounted(self, loaded: LoadedRow) -> str:
        """Media that are more or fewer than their placeholders (`_validate_messages` in data/mm_plugin.py).

        Without media a placeholder is left to the template: for a model of texts it is a text.
        """
        media = loaded[self.loaded_column] or ()
        placeholder = self.placeholder()
        count = 0
        for message in [*loaded["_prompt"], *loaded["_response"][:1]]:
            count += str(message["content"]).count(placeholder)
        if not media or count == len(media):
            return ""
        return _(
            "{count} of {placeholder} in the texts, and {number} {name}: LLaMA-Factory "
            "stops at it, expected one for each",
            count=count,
            placeholder=placeholder,
            number=len(media),
            name=self.name,
        )

    def not_found(self, loaded: LoadedRow) -> str:
        """The first path that leads to no file, cut to `LONGEST_PATH`, with the fix.

        LLaMA-Factory puts media_dir before plain paths and frames, and not before the path in an object.
        """
        for medium in loaded[self.loaded_column] or ():
            for path in _paths_of(medium):
                if not is_file(Path(path)):
                    fix = _fix_of_missing(path, is_in_object=isinstance(medium, dict))
                    return _(
                        "LLaMA-Factory does not find {path}: {fix}",
                        path=path[:LONGEST_PATH] or BLANK,
                        fix=fix,
                    )
        return ""


def _fix_of_missing(path: str, *, is_in_object: bool) -> str:
    """What to do about a path without a file."""
    if not path:
        return _("write null, or no medium")
    if "://" in path or path.startswith("data:"):
        return _("it opens files alone; download or save it, and write the path of the file")
    if is_in_object:
        return _(
            "it puts no media_dir before the path of an object; write the plain path in its place, or one "
            "from the folder in which the training starts"
        )
    return _("a recipe names the folder as media_dir")


def _is_same(medium: object, loaded: object) -> bool:
    """True if LLaMA-Factory loaded a medium of a record: the path may have media_dir before it."""
    if isinstance(medium, str) and isinstance(loaded, str):
        return bool(medium) and loaded.endswith(medium)
    if isinstance(medium, list) and isinstance(loaded, list):
        return len(medium) == len(loaded) and all(map(_is_same, medium, loaded))
    if isinstance(medium, dict) and isinstance(loaded, dict):  # with the keys of all rows
        keys = {key for key, value in [*medium.items(), *loaded.items()] if value is not None}
        return all(medium.get(key) == loaded.get(key) for key in keys)
    if isinstance(medium, dict) and hasattr(loaded, "getpixel"):  # decoded by `datasets`
        return True
    return medium == loaded


def _image_fault(image: object) -> str:
    """Why LLaMA-Factory cannot open an image, "" if it tries to."""
    if isinstance(image, str | bytes) or hasattr(image, "getpixel"):
        return ""
    expected = _('expected a path, or an object with "bytes" (null) and "path"')
    if not isinstance(image, dict):
        return _("found {image}, {expected}", image=show_value(image), expected=expected)
    content = image.get("bytes")
    if "bytes" not in image:
        return _('found {image} without "bytes", {expected}', image=show_value(image), expected=expected)
    if content is None and not isinstance(image.get("path"), str):
        return _("found {image} without a path, {expected}", image=show_value(image), expected=expected)
    if content is not None and not isinstance(content, bytes):
        return _(
            "found {content} as bytes, which are none in JSON, {expected}",
            content=show_value(content),
            expected=expected,
        )
    return ""


def _paths_of(medium: object) -> Iterator[str]:
    """Yield the paths that LLaMA-Factory opens of a medium: its own, or those of its frames."""
    if isinstance(medium, str):
        yield medium
    elif isinstance(medium, list):
        for frame in medium:
            yield from _paths_of(frame)
    elif isinstance(medium, dict) and medium.get("bytes") is None and isinstance(medium.get("path"), str):
        yield medium["path"]


def _media_type(name: str) -> MediaType:
    return MediaType(
        name,
        _PATHS,
        code=UNUSABLE_MEDIA,
        registry_key=name,
        loaded_column=f"_{name}",
        compared=PROMPT,
        beside=Beside(USUAL_NAMES[name], questions=True, settings={"default": []}),
        reader=MediaReader,
    )


IMAGES, VIDEOS, AUDIOS = map(_media_type, ("images", "videos", "audios"))


@cache
def refuse_unusable(path: Path, image: bool) -> None:
    """`WrongValueError` for a file that is not there, or an image that cannot be used.

    An image is read to its end: a PNG by its checksums, a JPEG decoded at an eighth of its size.
    """
    if not is_file(path):
        raise WrongValueError(
            _("{path}: file not found; `source.media_dir` in a spec says where they lie", path=path)
        )
    if not image:
        return
    from PIL import Image

    try:
        with open_image(path) as opened:
            if opened.format == "PNG":
                opened.verify()
            else:
                opened.draft("RGB", (1, 1))
                opened.load()
    except BROKEN_IMAGE as error:
        raise WrongValueError(
            _(
                "{path}: the image is broken, cut off, or not {format_names}: save it as one of these",
                path=path,
                format_names=FORMAT_NAMES,
            )
        ) from error
    except Image.DecompressionBombError as error:
        raise WrongValueError(_("{path}: {error}", path=path, error=error)) from error
