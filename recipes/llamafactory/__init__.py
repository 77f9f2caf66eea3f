"""LLaMA-Factory in processes of its own: its answers about a recipe, and its trainings."""
