"""Defect reports: judgement and reason."""
