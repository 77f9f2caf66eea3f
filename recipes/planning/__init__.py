"""Steps, tokens, memory, time, cost and disk of a training, for `recipe plan` and `recipe new`."""
