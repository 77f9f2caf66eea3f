"""`tuneyard data view`: a page that shows which tokens of each example the model learns."""
