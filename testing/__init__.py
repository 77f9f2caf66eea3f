"""What tests and the programs in tools/ both need: these two do not import each other. It is in no wheel."""
