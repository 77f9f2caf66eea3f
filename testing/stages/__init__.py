"""One cell of the table of stages and methods in docs/recipes.md: `make stages` runs all, slow tests some."""
