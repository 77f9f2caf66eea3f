"""Merge weights or checkpoints, scored point by point."""
