"""Evaluation data: datasets and their prompts, benchmarks, clusters of examples."""
