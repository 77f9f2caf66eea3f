"""Warnings on stderr."""

import click

from tuneyard.core.language.messages import say


def warn(text: str) -> None:
    """Print a warning to stderr."""
    say(f"warning: {text}", to_stderr=True)


def warn_once(text: str) -> None:
    """Print a warning unless this command has printed the same one."""
    context = click.get_current_context(silent=True)
    texts: set[str] = set()
    if context is not None:
        texts = context.meta.setdefault(__name__, texts)
    if text not in texts:
        texts.add(text)
        warn(text)
