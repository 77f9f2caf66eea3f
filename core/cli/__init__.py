"""The command `tuneyard`: its groups, the next command to type, and the demo."""
