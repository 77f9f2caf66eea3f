"""An adapter: its files, kinds, weights in a sum, origin, and the arithmetic on its factors."""
