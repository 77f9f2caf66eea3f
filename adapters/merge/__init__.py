"""`adapter merge` and `adapter extract`: write an adapter."""
