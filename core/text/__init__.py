"""Texts on their way out: what a terminal, a shell, Markdown and a log may get."""
