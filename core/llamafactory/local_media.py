"""LLaMA-Factory opens the images, videos and sounds of a dataset that is looked at from files alone.

FFmpeg takes an address for a file: `http://…` sends a request, `tcp://…` waits for ever. A playlist with the
name of a video lets it open further files and addresses. A dataset may come by mail.
"""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tuneyard.core.language.message import _
from tuneyard.core.records.images import BROKEN_IMAGE, limit_formats, open_image

VIDEO_FORMATS = "mov,matroska,webm,avi,mpegts,mpeg,flv,ogg,asf,gif"
"""FFmpeg's names of containers that hold their frames. Playlists (hls, concat, sdp) name other files."""
_FILES_ALONE = {"protocol_whitelist": "file", "format_whitelist": VIDEO_FORMATS}


class LocalVideos:
    """Stands in for the module `av` where LLaMA-Factory opens the videos of rows."""

    def __init__(self, av: Any) -> None:
        self._open = av.open
        self.FFmpegError = av.FFmpegError

    def open(self, video: Any, mode: str) -> Any:
        """Open a video. `ValueError` for a path that names no file, FFmpeg's errors for other contents."""
        return self._open(_regular_file(video), mode, options=_FILES_ALONE)


class LocalSounds:
    """Stands in for the module `torchaudio` where LLaMA-Factory loads the sounds of rows."""

    def __init__(self, torchaudio: Any) -> None:
        self._load = torchaudio.load
        self.functional = torchaudio.functional

    def load(self, sound: Any) -> Any:
        """Load a sound. `ValueError` for a path that names no file."""
        return self._load(_regular_file(sound))


def open_local_media() -> None:
    """Let LLaMA-Factory open media from regular files in this process, and images in our formats alone."""
    from llamafactory.data import mm_plugin

    limit_formats()
    mm_plugin.Image = SimpleNamespace(open=open_image)
    videos = getattr(mm_plugin, "av", None)
    if videos is not None and not isinstance(videos, LocalVideos):
        mm_plugin.av = LocalVideos(videos)
    if not isinstance(mm_plugin.torchaudio, LocalSounds):
        mm_plugin.torchaudio = LocalSounds(mm_plugin.torchaudio)


def broken_media() -> tuple[type[Exception], ...]:
    """What Pillow and FFmpeg raise at a file that is broken, or larger than they read."""
    from PIL.Image import DecompressionBombError

    errors: tuple[type[Exception], ...] = (*BROKEN_IMAGE, DecompressionBombError)
    if "av" in sys.modules:
        errors = (*errors, sys.modules["av"].FFmpegError)
    return errors


def _regular_file(media: Any) -> Any:
    """The absolute path of a file, which FFmpeg takes for no address. Media that is no text stays.

    `ValueError` for an address, a missing file, a pipe and a device.
    """
    if not isinstance(media, str):
        return media
    if not Path(media).is_file():
        raise ValueError(_("{media}: found no file, expected the path of a video or sound", media=media))
    return str(Path(media).absolute())
