# Thin lines over `python -m …`; the logic and the exit codes live there.
SHELL := /bin/bash
.DELETE_ON_ERROR:
PY := .venv/bin/python
