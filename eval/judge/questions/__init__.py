"""Questions beside which model is best: one file each, from runs to records."""
