"""One training from its check to its record, for `recipe train` and `recipe sweep`."""
