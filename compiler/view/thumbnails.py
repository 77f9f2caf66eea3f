"""Pictures of a row as small data: URIs."""

import base64
import io
import os
import warnings
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

from tuneyard.core.files import is_file
from tuneyard.core.records.images import BROKEN_IMAGE, open_image

SIDE = 160  # pixels
MOST = 4
"""Pictures of one row."""
QUALITY = 70


def thumbnails(images: Iterable[object], folders: Sequence[Path]) -> tuple[list[str], str]:
    """The first pictures of a row, made small, and the first path that leads out of the `folders`, or "".

    The page is made to be sent, and a mailed dataset may name any picture of its reader: only those in the
    folders are shown. Files that cannot be opened are left out.
    """
    roots = [Path(os.path.realpath(folder)) for folder in folders]
    files = []
    outside = ""
    for image in images:
        if isinstance(image, dict) and image.get("bytes") is None:  # as `datasets` stores it
            image = image.get("path")
        if not isinstance(image, str) or not is_file(Path(image)):
            continue
        target = Path(os.path.realpath(image))
        if any(target.is_relative_to(root) for root in roots):
            files.append(target)
        else:
            outside = outside or image
    uris = map(thumbnail_of, files)
    return list(islice(filter(None, uris), MOST)), outside


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
