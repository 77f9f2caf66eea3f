"""tuneyard recipe plan: steps, tokens, memory, time, cost and disk of a training."""
