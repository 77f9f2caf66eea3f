"""Comparisons as tables, plots, sentences and a page; rating sheets."""
