"""A picture is opened in six formats: Pillow hands others to programs. SECURITY.md, "Code"."""

import os
import re
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import EpsImagePlugin, Image

from tests.conftest import ROOT
from tests.messages import raises
from tuneyard.compiler.columns.media import refuse_unusable
from tuneyard.compiler.view.thumbnails import thumbnail_of
from tuneyard.core.errors import ContentError
from tuneyard.core.records.calls import WrongValueError
from tuneyard.core.records.images import FORMATS
from tuneyard.eval.scoring.images import _check_image

POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n(x) run\n%%EOF\n"
HOSTILE = {
    "plain.png": POSTSCRIPT,
    "binary.jpg": b"\xc5\xd0\xd3\xc6" + struct.pack("<7I", 32, len(POSTSCRIPT), *[0] * 5) + POSTSCRIPT,
    "drawing.eps": POSTSCRIPT,
}


@pytest.fixture
def ghostscript(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for Ghostscript on the PATH; the file that it writes once it is started."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "gs").write_text(f"#!/bin/sh\necho started > {tmp_path / 'ran'}\n")
    (programs / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    return tmp_path / "ran"


@pytest.mark.parametrize("name", HOSTILE)
def test_no_command_hands_a_picture_to_ghostscript(tmp_path: Path, ghostscript: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(HOSTILE[name])
    with raises(WrongValueError, str(path), "PNG, JPEG, WebP, GIF, BMP or TIFF"):
        refuse_unusable(path, image=True)
    with raises(ContentError, "a.json row 1", str(path), "PNG, JPEG, WebP, GIF, BMP or TIFF"):
        _check_image(path, "a.json row 1")
    assert thumbnail_of(path) == ""
    assert not ghostscript.exists()


@pytest.mark.parametrize("name", HOSTILE)
def test_llamafactory_hands_none_to_it_either(tmp_path: Path, ghostscript: Path, name: str) -> None:
    """Its processor calls `Image.open` without formats. `read_arguments` limits those of the process."""
    (tmp_path / name).write_bytes(HOSTILE[name])
    program = (
        "from tuneyard.core.records.images import limit_formats; limit_formats()\n"
        "from PIL import Image, UnidentifiedImageError\n"
        "try:\n"
        f"    Image.open({name!r}).convert('RGB')\n"
        "except UnidentifiedImageError:\n"
        "    print('refused')\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True)
    assert done.stdout == b"refused\n", done.stderr
    assert not ghostscript.exists()


def test_pillow_alone_starts_it(tmp_path: Path, ghostscript: Path) -> None:
    """The tests above can fail."""
    (tmp_path / "a.png").write_bytes(POSTSCRIPT)
    with pytest.raises(OSError), Image.open(tmp_path / "a.png") as opened:
        opened.load()
    assert ghostscript.exists()


@pytest.mark.parametrize("name", FORMATS)
def test_the_formats_of_datasets_are_opened(tmp_path: Path, name: str) -> None:
    path = tmp_path / "picture"  # its name says nothing
    Image.new("RGB", (32, 16), "red").save(path, name)
    checks: list[Callable[[], None]] = [
        lambda: refuse_unusable(path, image=True),
        lambda: _check_image(path, "row 1"),
    ]
    for check in checks:
        check()
    assert thumbnail_of(path).startswith("data:image/jpeg;base64,")


def test_no_other_place_opens_pictures() -> None:
    places = set()
    for package in ("core", "compiler", "recipes", "adapters", "eval"):
        for path in (ROOT / package).rglob("*.py"):
            if re.search(r"\bImage\.open\(", path.read_text(encoding="utf-8")):
                places.add(path.relative_to(ROOT).as_posix())
    assert places == {"core/records/images.py"}
