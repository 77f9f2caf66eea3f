"""Figures with their uncertainty: intervals, paired tests, multiplicity."""
