"""Are the rows fit to train on? Each row alone, then rows compared with rows."""
