"""Images, videos and audios of a row: files named by path, one for each placeholder in its texts.

LLaMA-Factory 0.9.5 looks for them below its `media_dir` and refuses a row that names more or fewer than its
turns have placeholders (data/mm_plugin.py); it opens them only while it trains.
"""

import contextlib
import struct
from functools import cache
from pathlib import Path, PurePath
from typing import cast

from tuneyard.compiler.kinds import PLACEHOLDERS
from tuneyard.compiler.spec import Spec, placeholders
from tuneyard.compiler.turns import USER, Turn
from tuneyard.core.calls import WrongValueError
from tuneyard.core.errors import counted, show_value

PIXELS = 768 * 768  # LLaMA-Factory's image_max_pixels: what has more is made smaller before it is trained on
BROKEN_IMAGE = (OSError, ValueError, SyntaxError, EOFError, IndexError, struct.error)  # of Pillow's decoders


class Media:
    """Reads the media columns of a spec's rows; counts what LLaMA-Factory will change or not find."""

    def __init__(self, spec: Spec, shown: str) -> None:
        """`shown` is the source file as the user gave it: media lie beside it, or in `media_dir`."""
        self.folder = Path(spec.source.media_dir) if spec.source.media_dir else Path(shown).parent
        self.columns = [column for column in spec.columns if column.kind in PLACEHOLDERS]
        self.turns = spec.turns
        asking, output = ("instruction", "input", "user"), spec.outputs[0]
        self.asked = output.columns_of(*asking)
        templates = "".join(output.templates.get(key, "") for key in asking)
        self.literal = "".join(text for text, _ in placeholders(templates))
        self.absolute: set[str] = set()
        self.large: set[str] = set()

    def paths(self, kind: str, value: object) -> list[str]:
        """Return the paths in a cell, one as text or a list; `WrongValueError` names what is wrong."""
        found = [value] if isinstance(value, str) and value else value or []
        for path in cast("list[object]", found):
            expected = f"found {show_value(path)}, expected the path of a file"
            if not isinstance(path, str) or not path.strip():
                raise WrongValueError(expected)
            if ".." in PurePath(path).parts:
                raise WrongValueError(f"{path}: leads out of the folder; expected a path below it")
            if "://" in path or path.startswith("data:"):
                raise WrongValueError(f"{expected}: save it as one")
            pixels = looked_at(self.folder / path, kind == "images")
            if PurePath(path).is_absolute():
                self.absolute.add(path)
            if pixels > PIXELS:
                self.large.add(path)
        return cast("list[str]", found)

    def place(self, row: dict[str, object]) -> dict[str, object]:
        """Return a row with a placeholder for each file, added where it has none; else `WrongValueError`."""
        for column in self.columns:
            paths, mark = cast("list[str]", row[column.name]), PLACEHOLDERS[column.kind]
            talk = cast("list[Turn]", row[self.turns]) if self.turns else []
            texts = [turn.text for turn in talk] or [self.literal, *(str(row[name]) for name in self.asked)]
            count = sum(text.count(mark) for text in texts)
            if count == len(paths):
                continue
            if count:
                raise WrongValueError(
                    f"{count} of {mark} in the texts, and {len(paths)} {column.kind}: expected one for each"
                )
            row = row | self._marked(row, talk, mark * len(paths))
        return row

    def _marked(self, row: dict[str, object], talk: list[Turn], marks: str) -> dict[str, object]:
        """Return what changes where the first question begins with placeholders."""
        if not self.turns:
            return {self.asked[0]: f"{marks}{row[self.asked[0]]}"}
        first = next(number for number, turn in enumerate(talk) if turn.role == USER)
        question = talk[first]._replace(text=marks + talk[first].text)
        return {self.turns: [*talk[:first], question, *talk[first + 1 :]]}

    def notes(self) -> list[str]:
        """Return, for people, what the records do not show: where the files are looked for."""
        large, absolute = counted(len(self.large), "image"), counted(len(self.absolute), "absolute path")
        shrunk = f"{large} of more than {PIXELS} pixels: LLaMA-Factory shrinks them (image_max_pixels)"
        said = {
            f"media are looked for in {self.folder}: a recipe names it as media_dir": self.columns,
            shrunk: self.large,
            f"{absolute}: they hold on this machine only": self.absolute,
        }
        return [note for note, found in said.items() if found]


@cache
def looked_at(path: Path, image: bool) -> int:
    """Return how many pixels an image has, 0 for any other file; `WrongValueError` where it cannot be used.

    An image is read to its end: a PNG by its checksums, a JPEG decoded at an eighth of its size.
    """
    there = False
    with contextlib.suppress(OSError):  # a name that is too long
        there = path.is_file()
    if not there:
        raise WrongValueError(f"{path}: file not found; `source.media_dir` in a spec says where they lie")
    if not image:
        return 0
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as opened:
            pixels = int(opened.width * opened.height)
            if opened.format == "PNG":
                opened.verify()
            else:
                opened.draft("RGB", (1, 1))
                opened.load()
            return pixels
    except UnidentifiedImageError as error:
        raise WrongValueError(f"{path}: no image that can be opened") from error
    except BROKEN_IMAGE as error:
        raise WrongValueError(f"{path}: the image is broken or cut off") from error
    except Image.DecompressionBombError as error:
        raise WrongValueError(f"{path}: {error}") from error
