"""Tuneyard's packages under one name: each entry beside this file is a link to a folder of the checkout.

All imports say `from tuneyard.core …`, so that nobody's own `core` or `eval` is shadowed (CONTRIBUTING.md).
"""
