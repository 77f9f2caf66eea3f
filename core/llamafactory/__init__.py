"""The one door to LLaMA-Factory: what mirrors it, and what calls it."""
