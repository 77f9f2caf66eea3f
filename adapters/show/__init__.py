"""`adapter show`: measure, print and draw adapters."""
