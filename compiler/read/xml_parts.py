"""XML inside an archive, parsed piece by piece in bounded memory: no document types, no endless tokens."""

import zipfile
from collections.abc import Callable, Iterator
from typing import Protocol
from xml.parsers import expat

from tuneyard.compiler.read.archives import DAMAGE
from tuneyard.compiler.rows.problem_codes import UNREADABLE_TABLE
from tuneyard.compiler.rows.problems import UnreadableFileError
from tuneyard.core.files.bounded_reading import LARGEST_RECORD
from tuneyard.core.language.message import _

BLOCK = 1 << 16
LONGEST_TOKEN = 1 << 20
"""The most bytes of one tag or comment. Expat keeps a whole one, and looks at it again for each block."""
DEEPEST = 256
MOST_NAMES = 10_000
LARGEST_PART = LARGEST_RECORD
"""The most bytes of a part that lists sheets or styles."""
EXPORT_AGAIN = _("export the file again")


class Handlers(Protocol):
    """Takes the elements of a document until it `has_ended`. Names have no prefix."""

    has_ended: bool

    def start(self, name: str, attributes: dict[str, str]) -> None:
        """An element begins."""

    def end(self, name: str) -> None:
        """An element ends."""

    def text(self, text: str) -> None:
        """Some of the text inside an element."""


def broken(location: str, message: str, fix: str = EXPORT_AGAIN) -> UnreadableFileError:
    """E012 for a workbook."""
    return UnreadableFileError(
        UNREADABLE_TABLE, _("the workbook cannot be read: {message}", message=message), fix, location
    )


def parse(
    archive: zipfile.ZipFile, path: str, handlers: Handlers, location: Callable[[], str]
) -> Iterator[None]:
    """Parse a member, and yield after each block, in which the handlers were called for its elements.

    The rest of the member is not read once the handlers have ended. `UnreadableFileError` with the `location`
    of that moment for what is no XML, and for a document type, whose entities may be files or billions of
    characters.
    """
    parser = expat.ParserCreate()
    parser.buffer_text = True
    local_names: dict[str, str] = {}
    depth = 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > DEEPEST:
            raise broken(
                location(),
                _("{path} has more than {most} elements inside each other", path=path, most=DEEPEST),
            )
        if name not in local_names:
            if len(local_names) > MOST_NAMES:
                raise broken(
                    location(),
                    _(
                        "{path} has more than {most:,} names of elements",
                        path=path,
                        most=MOST_NAMES,
                    ),
                )
            local_names[name] = name.rpartition(":")[2]
        handlers.start(local_names[name], attributes)

    def end(name: str) -> None:
        nonlocal depth
        depth -= 1
        handlers.end(local_names[name])

    def refuse(*_unused: object) -> None:
        raise broken(location(), _("{path} declares a document type, expected none", path=path))

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = handlers.text
    parser.StartDoctypeDeclHandler = refuse
    count = 0
    try:
        with archive.open(path) as file:
            while block := file.read(BLOCK):
                parser.Parse(block, False)
                count += len(block)
                if count - parser.CurrentByteIndex > LONGEST_TOKEN:
                    raise broken(
                        location(),
                        _(
                            "{path} has a tag of more than {most} MiB",
                            path=path,
                            most=LONGEST_TOKEN >> 20,
                        ),
                    )
                yield
                if handlers.has_ended:
                    return
            parser.Parse(b"", True)
            yield
    except KeyError as error:
        raise broken(location(), _("it has no {path}", path=path)) from error
    except (expat.ExpatError, ValueError, OverflowError, *DAMAGE) as error:
        raise broken(location(), _("{path}: {error}", path=path, error=error)) from error


def refuse_large(archive: zipfile.ZipFile, path: str, location: str) -> None:
    """Refuse a member of more than `LARGEST_PART` bytes by its header: `zipfile` reads no more than that."""
    if path in archive.namelist() and archive.getinfo(path).file_size > LARGEST_PART:
        size = archive.getinfo(path).file_size
        raise broken(
            location,
            _(
                "{path} has {size:,} bytes, expected at most {most:,}",
                path=path,
                size=size,
                most=LARGEST_PART,
            ),
        )
