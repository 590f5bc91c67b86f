"""What a command runs, each in a folder of its own: search, train, compare."""
