"""Checked columns become records in files, which are read back before they are published."""
