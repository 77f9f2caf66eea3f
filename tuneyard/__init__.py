"""Tuneyard's packages under one name: each entry beside this file is a link to a folder of the checkout.

So that nobody's own `core` or `eval` is shadowed, all imports and the installed package go by `tuneyard`.
"""
