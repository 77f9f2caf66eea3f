"""The command `tuneyard`: its groups, the next command to type, the demo and the reference."""
