"""Programs that measure and attack Tuneyard: run by hand or by `make`, not by the tests."""
