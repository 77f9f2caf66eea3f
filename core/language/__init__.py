"""Tables, verdicts and numbers in the language of the reader."""
