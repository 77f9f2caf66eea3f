"""tuneyard recipe best: the best checkpoint of a training."""
