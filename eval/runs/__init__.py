"""Scored runs: the files of a run, other tools' results, and the values of a metric."""
