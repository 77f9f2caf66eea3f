"""tuneyard recipe check: every problem of a recipe."""
