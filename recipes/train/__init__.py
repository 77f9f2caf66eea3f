"""tuneyard recipe train: a training that is checked, resumed and recorded."""
