"""Free answers to questions."""
