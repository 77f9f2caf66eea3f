"""Numbers with their nouns."""


def counted(number: int, noun: str) -> str:
    """Format a number with its noun: `1 error`, `2,000 errors`."""
    if number == 1:
        return f"1 {noun}"
    return f"{number:,} {noun}s"


def size_words(size: float) -> str:
    """Format bytes in the largest decimal unit that fits at least once: `3.6 MB`."""
    units = {"TB": 1e12, "GB": 1e9, "MB": 1e6, "kB": 1e3}
    for unit, scale in units.items():
        if size >= scale:
            return f"{size / scale:,.1f} {unit}"
    return counted(round(size), "byte")
