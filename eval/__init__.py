"""Asking a model and believing the answer: one file is one command (design §5)."""
