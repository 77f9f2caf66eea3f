"""`make mutate`: small errors put into the code, one at a time; a test must fail for each."""
