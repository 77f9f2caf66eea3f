"""How an answer is judged: figures with their uncertainty, and comparisons on the same rows."""
