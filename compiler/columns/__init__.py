"""The column types (`is:` in a spec), one file each."""
