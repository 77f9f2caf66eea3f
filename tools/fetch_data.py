"""python -m tools.fetch_data FOLDER [--catalogue FILE]: download the public files of tests into a folder.

tools/public_data.yaml has the address, licence and SHA-256 of each file, and which files are made of others.
A file that is there and right is kept, so that a second run goes on where the first one ended. A file appears
under its name only after its hash was checked. Exit code 1 if a file is missing or differs at the end.
"""

import argparse
import contextlib
import hashlib
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path, PurePosixPath
from types import FrameType
from typing import BinaryIO, NoReturn
from urllib.parse import urljoin, urlsplit

from tqdm import tqdm

from tools.data_cuts import CUTS
from tuneyard.core.documents import read_mapping
from tuneyard.core.errors import TuneyardError
from tuneyard.core.files import Fields, sha256
from tuneyard.core.text.quoting import one_line

CATALOGUE = Path(__file__).with_name("public_data.yaml")
SECONDS = 60
"""A server that sends nothing for so long is given up."""
BLOCK = 1 << 20
"""Bytes that are read and written at once."""
PART = ".part"
"""Ends the name of a file whose hash is not checked yet."""


SECONDS_A_FILE = 900
"""The largest has 7 MB."""


class DataError(Exception):
    """A file that cannot be had as the catalogue has it: its name, what is wrong, and the fix."""


class UnreachableError(DataError):
    """A host that cannot be reached: its other files are not asked for."""


@dataclass(frozen=True, slots=True)
class PublicFile:
    """A file to download, by its name in the folder."""

    name: str
    address: str
    licence: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Cut:
    """A file that a function of `CUTS` makes of others."""

    name: str
    function: str
    of: tuple[str, ...]
    sha256: str


def read_catalogue(path: Path) -> tuple[list[PublicFile], list[Cut]]:
    """The files of a catalogue. `DataError` for one that is not of its form."""
    catalogue = read_mapping(path, "the catalogue")
    files = []
    for source in _entries(catalogue.get("sources"), f"{path}: sources"):
        address = _text(source, "address", path)
        if urlsplit(address).scheme not in ("http", "https") or not address.endswith("/"):
            raise DataError(f"{path}: address is {address!r}, expected http(s)://… that ends in a slash")
        for name, entry in _named(source.get("files"), path):
            size = entry.get("bytes")
            if not isinstance(size, int) or size < 0:
                raise DataError(f"{path}: {name}: bytes is {size!r}, expected the size of the file")
            whole_address = urljoin(address, _text(entry, "path", path))
            files.append(
                PublicFile(name, whole_address, _text(source, "licence", path), size, _hash(entry, path))
            )
    cuts = []
    for name, entry in _named(catalogue.get("cuts", {}), path):
        function, of = _text(entry, "cut", path), entry.get("of")
        if function not in CUTS:
            raise DataError(f"{path}: {name}: cut is {function!r}, expected one of {', '.join(CUTS)}")
        if not isinstance(of, list) or not all(isinstance(one, str) for one in of):
            raise DataError(f"{path}: {name}: of is {of!r}, expected a list of names above")
        cuts.append(Cut(name, function, tuple(of), _hash(entry, path)))
    return files, cuts


def _entries(value: object, place: str) -> list[Fields]:
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise DataError(f"{place}: found {type(value).__name__}, expected a list of mappings")
    return value


def _named(value: object, path: Path) -> Iterator[tuple[str, Fields]]:
    """Yield names in the folder with their entries. A name that leads out of the folder is refused."""
    if not isinstance(value, dict):
        raise DataError(f"{path}: found {type(value).__name__}, expected names of files with their entries")
    for name, entry in value.items():
        inside = isinstance(name, str) and not PurePosixPath(name).is_absolute()
        if not inside or not name or ".." in PurePosixPath(name).parts:
            raise DataError(f"{path}: the name is {name!r}, expected a path inside of the folder")
        if not isinstance(entry, dict):
            raise DataError(f"{path}: {name}: found {type(entry).__name__}, expected a mapping")
        yield name, entry


def _text(entry: Fields, key: str, path: Path) -> str:
    value = entry.get(key)
    if not isinstance(value, str) or not value:
        raise DataError(f"{path}: {key} is {value!r}, expected a text")
    return value


def _hash(entry: Fields, path: Path) -> str:
    value = _text(entry, "sha256", path)
    if len(value) != 64 or not set(value) <= set("0123456789abcdef"):
        raise DataError(f"{path}: sha256 is {value!r}, expected 64 hexadecimal digits")
    return value


def is_there(folder: Path, name: str, expected: str) -> bool:
    """True if the file is there with its hash. `DataError` for another file of this name, which stays."""
    path = folder / name
    if not path.exists():
        return False
    if not path.is_file():
        raise DataError(f"{path}: not a file; move it away and run this again")
    actual = sha256(path)
    if actual != expected:
        raise DataError(f"{path}: SHA-256 is {actual}, expected {expected}; delete it to get it again")
    return True


@contextlib.contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A path to write to, which takes the name of `path` at the end. Nothing stays after an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}{PART}")
    part.unlink(missing_ok=True)  # of a run that was killed; a link there is not followed
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def download(file: PublicFile, path: Path, progress: "tqdm[NoReturn]") -> None:
    """Stream a file to its path. `DataError` for another hash, or for more or fewer bytes than expected."""
    request = urllib.request.Request(file.address, headers={"User-Agent": "tuneyard-fetch-data"})
    try:
        with replaced(path) as part, urllib.request.urlopen(request, timeout=SECONDS) as answer:
            with part.open("xb") as output:
                actual = copy(answer, output, file, progress)
            if actual != file.sha256:
                raise DataError(f"{file.address}: SHA-256 is {actual}, expected {file.sha256}; not kept")
    except urllib.error.HTTPError as error:
        raise DataError(f"{file.address}: {error}") from error
    except urllib.error.URLError as error:
        raise UnreachableError(f"{file.address}: {error.reason}; run this again with a network") from error
    except (OSError, HTTPException) as error:
        raise DataError(f"{file.address}: {error}; run this again") from error


def copy(answer: HTTPResponse, output: BinaryIO, file: PublicFile, progress: "tqdm[NoReturn]") -> str:
    """Write the body of an answer as it comes. Its SHA-256."""
    digest, received = hashlib.sha256(), 0
    deadline = time.monotonic() + SECONDS_A_FILE
    while block := answer.read1(BLOCK):
        received += len(block)
        if received > file.bytes:
            raise DataError(f"{file.address}: more than {file.bytes:,} bytes, the expected size; not kept")
        if time.monotonic() > deadline:
            raise DataError(f"{file.address}: not finished in {SECONDS_A_FILE} s; run this again")
        digest.update(block)
        output.write(block)
        progress.update(len(block))
    if received < file.bytes:
        raise DataError(f"{file.address}: {received:,} bytes, expected {file.bytes:,}; run this again")
    return digest.hexdigest()


def cut_out(cut: Cut, folder: Path) -> None:
    """Make a file of others. `DataError` if one of them is missing, or for another hash."""
    missing = [name for name in cut.of if not (folder / name).is_file()]
    if missing:
        raise DataError(f"{cut.name}: needs {missing[0]}, which is missing")
    content = CUTS[cut.function]([(folder / name).read_bytes() for name in cut.of])
    actual = hashlib.sha256(content).hexdigest()
    if actual != cut.sha256:
        raise DataError(f"{cut.name}: made with SHA-256 {actual}, expected {cut.sha256}; nothing is kept")
    with replaced(folder / cut.name) as part:
        part.write_bytes(content)


def fetch(folder: Path, catalogue: Path) -> list[str]:
    """Download and make what the folder lacks. What went wrong, a line for each file."""
    files, cuts = read_catalogue(catalogue)
    problems: list[str] = []
    unreachable: set[str] = set()
    counts = dict.fromkeys(("downloaded", "kept", "made"), 0)
    total = sum(file.bytes for file in files)
    with tqdm(total=total, unit="B", unit_scale=True, file=sys.stderr, mininterval=1) as progress:
        for file in files:
            host = urlsplit(file.address).netloc
            progress.set_description(file.name, refresh=False)
            try:
                if is_there(folder, file.name, file.sha256):
                    counts["kept"] += 1
                    progress.update(file.bytes)
                elif host in unreachable:
                    problems.append(f"{file.name}: not asked for, {host} cannot be reached")
                else:
                    download(file, folder / file.name, progress)
                    counts["downloaded"] += 1
            except DataError as error:
                problems.append(str(error))
                if isinstance(error, UnreachableError):
                    unreachable.add(host)
    for cut in cuts:
        try:
            if is_there(folder, cut.name, cut.sha256):
                counts["kept"] += 1
            else:
                cut_out(cut, folder)
                counts["made"] += 1
        except DataError as error:
            problems.append(str(error))
    print(
        f"{folder}: {counts['downloaded']} downloaded, {counts['kept']} kept, {counts['made']} made of others"
    )
    return problems


def _stop(signal_number: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(128 + signal_number)


def main() -> int:
    parser = argparse.ArgumentParser("python -m tools.fetch_data", description=__doc__)
    parser.add_argument("folder", type=Path, help="It gets the files; TUNEYARD_DATA names it for the tests.")
    parser.add_argument("--catalogue", type=Path, default=CATALOGUE, help="Another list of files.")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, _stop)
    try:
        problems = fetch(options.folder, options.catalogue)
    except (DataError, TuneyardError, OSError) as error:
        problems = [str(error)]
    except KeyboardInterrupt:
        return 130
    for problem in problems:
        print(f"error: {one_line(problem)}", file=sys.stderr)
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
