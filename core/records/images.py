"""The one way in which commands open images, and the errors of Pillow.

Pillow opens 40 formats. It hands a PostScript file to Ghostscript, which runs it as a program, whatever the
file's name is. A dataset may come by mail, so that we open the formats of datasets alone.
"""

import struct
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from tuneyard.core.language.message import _

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
FORMAT_NAMES = "PNG, JPEG, WebP, GIF, BMP or TIFF"
BROKEN_IMAGE = (OSError, ValueError, SyntaxError, EOFError, IndexError, struct.error)
"""What Pillow's decoders raise at a file that is broken or cut off. `OSError` also for another format."""


def open_image(image: "str | Path | BinaryIO") -> "ImageFile":
    """Open an image, a path or an open file, in one of `FORMATS`. One of `BROKEN_IMAGE` for others."""
    from PIL import Image

    if isinstance(image, str | Path) and Path(image).exists() and not Path(image).is_file():
        raise OSError(
            _("{image}: found no regular file, expected an image", image=image)
        )  # opening a pipe never ends
    return Image.open(image, formats=FORMATS)


def limit_formats() -> None:
    """Let Pillow open no other formats in this process: LLaMA-Factory opens images by itself."""
    from PIL import Image

    Image.init()  # registers all formats, once
    Image.ID[:] = FORMATS
