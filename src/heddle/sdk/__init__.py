"""heddle from Python."""
