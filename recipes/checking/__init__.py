"""The whole check of a recipe, which commands that train, plan or write one make, too."""
