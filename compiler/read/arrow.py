"""Arrow files, as `datasets` saves them (streams) or as files of record batches; places are row numbers."""

from collections.abc import Iterator

from compiler.problems import Problems
from compiler.read import OpenFile, reader
from compiler.read.parquet import BATCH, ArrowRows, refuse_twice, unpacked
from core.errors import Problem

MAGIC = b"ARROW1"


@reader(".arrow", text=False)
def read_arrow(file: OpenFile, problems: Problems) -> Iterator[ArrowRows]:
    """Yield the rows of an Arrow file, batch by batch as it was written; a broken one is a problem."""
    import pyarrow
    import pyarrow.ipc

    start = 1
    try:
        if file.stream.peek(len(MAGIC)).startswith(MAGIC):
            source = file.stream if file.stream.seekable() else unpacked(file.stream)
            whole = pyarrow.ipc.open_file(source)
            names = whole.schema.names
            batches = (whole.get_batch(number) for number in range(whole.num_record_batches))
        else:
            stream = pyarrow.ipc.open_stream(file.stream)
            names, batches = stream.schema.names, iter(stream)
        if refuse_twice(names, file.shown, problems):
            return
        for batch in batches:
            for at in range(0, batch.num_rows, BATCH):
                part = batch.slice(at, BATCH)
                yield ArrowRows(f"{file.shown} row ", range(start, start + part.num_rows), part)
                start += part.num_rows
    except (pyarrow.ArrowException, OSError) as error:
        message = f"Arrow cannot be read: {str(error).splitlines()[0]}"
        problems.bad_file(Problem("E012", f"{file.shown} row {start}", message))
