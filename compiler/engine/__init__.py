"""A compile: its request, the loop over the rows of a file, two passes, several files."""
