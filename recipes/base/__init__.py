"""tuneyard recipe base: the embedded base model as a model folder."""
