"""Trainings as LLaMA-Factory writes them: stages, run folders, metrics."""
