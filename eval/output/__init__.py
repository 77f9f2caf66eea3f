"""How results are kept and shown."""
