"""heddle from the command line."""
