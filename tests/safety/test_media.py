"""Images, videos and sounds of a mailed dataset are opened from files alone: SECURITY.md, "Files"."""

import os
import struct
import zlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from testing.tiny import make_seeing
from tests.json_files import write_json
from tests.serving import Quiet, local_server, serving
from tuneyard.core.llamafactory.loader import Launch
from tuneyard.core.llamafactory.local_media import LocalSounds, LocalVideos, broken_media
from tuneyard.core.records.images import open_image
from tuneyard.recipes.llamafactory.inspection import inspect

av = pytest.importorskip("av")
open_video = LocalVideos(av).open


class Counting(Quiet, BaseHTTPRequestHandler):
    """A server that counts its requests."""

    requests: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.requests.append(self.path)
        self.send_error(404)


@pytest.fixture
def address() -> Iterator[str]:
    """Address of a server to which no request may come."""
    Counting.requests = []
    with serving(local_server(Counting)) as url:
        yield url
    assert Counting.requests == []


def hostile_videos(folder: Path, url: str) -> list[str]:
    """Paths and addresses in a row that FFmpeg would follow or wait for."""
    (folder / "playlist.mp4").write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{url}/hls.ts\n")
    (folder / "list.mp4").write_text(f"ffconcat version 1.0\nfile '{url}/concat.mp4'\n")
    (folder / "stream.mp4").write_text("v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nt=0 0\nm=video 9 RTP/AVP 96\n")
    os.mkfifo(folder / "pipe.mp4")
    files = [str(folder / f"{name}.mp4") for name in ("playlist", "list", "stream", "pipe", "missing")]
    return [f"{url}/v.mp4", url.replace("http:", "tcp:"), f"cache:{url}/v", "/dev/zero", *files]


@pytest.mark.timeout(60)
def test_ffmpeg_sends_no_request_and_waits_for_nothing(tmp_path: Path, address: str) -> None:
    for path in hostile_videos(tmp_path, address):
        with pytest.raises((ValueError, *broken_media())):
            open_video(path, "r")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("segment", ["{home}/private.ts", "../home/private.ts", "file://{home}/private.ts"])
def test_a_playlist_opens_no_other_file(tmp_path: Path, segment: str) -> None:
    for name in ("home", "mailed"):
        (tmp_path / name).mkdir()
    make_video(tmp_path / "home/private.ts")
    playlist = tmp_path / "mailed/v.m3u8"
    line = segment.format(home=tmp_path / "home")
    playlist.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{line}\n#EXT-X-ENDLIST\n")
    with pytest.raises(broken_media()):
        open_video(str(playlist), "r")


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "webm", "mov", "ts", "gif"])
def test_containers_of_videos_are_opened(tmp_path: Path, suffix: str) -> None:
    make_video(tmp_path / f"v.{suffix}")
    with open_video(str(tmp_path / f"v.{suffix}"), "r") as container:
        assert sum(1 for _ in container.decode(video=0)) == 3


def make_video(path: Path) -> None:
    """Write three frames in the container that the file's name says."""
    codec, pixels = {"gif": ("gif", "rgb8"), "webm": ("libvpx", "yuv420p")}.get(
        path.suffix[1:], ("mpeg4", "yuv420p")
    )
    noise = np.random.default_rng(0)  # FFmpeg knows no .ts of a few bytes
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=5, width=64, height=64, pix_fmt=pixels)
        for _ in range(3):
            frame = av.VideoFrame.from_ndarray(noise.integers(0, 256, (64, 64, 3), np.uint8), "rgb24")
            container.mux(stream.encode(frame.reformat(format=pixels)))
        container.mux(stream.encode())


@pytest.mark.timeout(60)
def test_sounds_come_from_files(tmp_path: Path, address: str) -> None:
    sounds = LocalSounds(pytest.importorskip("torchaudio"))
    os.mkfifo(tmp_path / "pipe.wav")
    for path in (f"{address}/a.wav", str(tmp_path / "pipe.wav"), "/dev/zero", str(tmp_path / "missing.wav")):
        with pytest.raises(ValueError, match="expected the path"):
            sounds.load(path)


@pytest.mark.timeout(60)
def test_an_image_that_is_a_pipe_or_a_device_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.png", Path("/dev/zero"), tmp_path):
        with pytest.raises(OSError, match="regular file"):
            open_image(path)


def write_bomb(path: Path) -> None:
    """Write a PNG whose header says 60,000 x 60,000 pixels, which Pillow refuses by an error of its own."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk)


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_looking_at_a_recipe_opens_media_so(tmp_path: Path, address: str) -> None:
    """Each dataset has a finding about its row, and none stops the whole answer."""
    make_seeing(tmp_path / "model")
    write_bomb(tmp_path / "bomb.png")
    rows = [("videos", path) for path in hostile_videos(tmp_path, address)]
    rows += [("images", str(tmp_path / "bomb.png")), ("images", f"{address}/i.png"), ("images", "/dev/zero")]
    entries = {}
    for number, (kind, path) in enumerate(rows):
        text = f"<{kind.removesuffix('s')}>What is it?"
        row = {"instruction": text, "input": "", "output": "It is a cat.", kind: [path]}
        write_json(tmp_path / f"{number}.json", [row])
        columns = {"prompt": "instruction", "query": "input", "response": "output", kind: kind}
        entries[f"d{number}"] = {"file_name": f"{number}.json", "columns": columns}
    write_json(tmp_path / "dataset_info.json", entries)
    answer = inspect(
        {
            "model_name_or_path": str(tmp_path / "model"), "stage": "sft", "do_train": True,
            "finetuning_type": "lora", "dataset_dir": str(tmp_path), "dataset": ",".join(entries),
            "template": "qwen2_vl", "cutoff_len": 1024, "output_dir": str(tmp_path / "out"),
        },
        Launch(),
    )  # fmt: skip
    assert {name: about.bad for name, about in answer.data.items()} == dict.fromkeys(entries, 1)
