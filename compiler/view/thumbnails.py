"""Pictures of a row as small data: URIs."""

import base64
import io
import warnings
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from tuneyard.core.files import is_file
from tuneyard.core.records.images import BROKEN_IMAGE, open_image

SIDE = 160  # pixels
MOST = 4
"""Pictures of one row."""
QUALITY = 70


def thumbnails(images: Iterable[object]) -> list[str]:
    """The first pictures of a row, made small. Files that cannot be opened are left out."""
    files = []
    for image in images:
        if isinstance(image, dict) and image.get("bytes") is None:  # as `datasets` stores it
            image = image.get("path")
        if isinstance(image, str):
            files.append(Path(image))
    uris = map(thumbnail_of, filter(is_file, files))
    return list(islice(filter(None, uris), MOST))


def thumbnail_of(path: Path) -> str:
    """A small JPEG as a data: URI, "" for a file that is no image in a known format."""
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with open_image(path) as opened:
                opened.draft("RGB", (SIDE, SIDE))  # a JPEG is decoded small
                small = opened.convert("RGB")
        except (*BROKEN_IMAGE, Image.DecompressionBombError, Image.DecompressionBombWarning):
            return ""
    small.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    small.save(file, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
