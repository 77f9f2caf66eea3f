"""From results to a verdict."""
