"""Judgement on scored runs: pure functions from rows to figures, paired tests and a decision."""
