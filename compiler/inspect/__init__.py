"""Commands that only look: show, stats, diff."""
