"""tuneyard data init FILE: look at a file and propose the spec that compiles it."""
