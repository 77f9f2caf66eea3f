"""The questions of a comparison: one file each, from runs to records."""
