"""How answers are read and measured: one kind of figure a file."""
