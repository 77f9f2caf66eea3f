"""What a terminal, a shell, Markdown and a log may get of a text."""
