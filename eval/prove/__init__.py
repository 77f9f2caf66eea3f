"""The parity check of `tuneyard eval prove`: the same prompts and answers from training to serving."""
