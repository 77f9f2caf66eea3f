"""tuneyard recipe sweep: a grid of trainings side by side, and their table."""
