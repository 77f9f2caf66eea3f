"""tuneyard recipe new: a commented recipe from dataset, model and machine."""
