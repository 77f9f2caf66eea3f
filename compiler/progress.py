"""A bar on a terminal for work of over two seconds: how many bytes of the sources are read."""

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator

from tuneyard.compiler.read.stream import Readable, stored_size

DELAY = 2.0
Moved = Callable[[int], object]
"""Takes the number of bytes that were read."""


@contextlib.contextmanager
def progress_bar(paths: Iterable[Readable]) -> Iterator[Moved | None]:
    """Show a bar over the bytes of these files once two seconds have passed. Yields what moves it.

    None without a terminal.
    """
    if sys.stderr is None or not sys.stderr.isatty():
        yield None
        return
    from tqdm import tqdm

    total = sum(map(stored_size, paths))
    with tqdm(desc="reading", total=total, unit="B", unit_scale=True, leave=False, delay=DELAY) as bar:
        yield bar.update
