"""Asking a model and believing the answer: one file is one command (design §5)."""

import core as core  # first: it says in one sentence which package is not installed
