"""A dataset as one YAML file: its schema, its data classes, and the vocabulary of column names."""
