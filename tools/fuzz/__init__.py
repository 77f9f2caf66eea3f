"""The compiler under mutated and random files: every outcome is one of ours, and what is written is right."""
