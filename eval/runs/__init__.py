"""Scored runs: written and read back, other tools' logs, and their comparison on the same rows."""
