"""Commands about datasets that exist: show, stats, diff."""
