"""Trainings as files that LLaMA-Factory takes as they are: checked, planned, launched, resumed."""
