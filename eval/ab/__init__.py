"""Side by side: a sheet to judge blindly, and its tally."""
