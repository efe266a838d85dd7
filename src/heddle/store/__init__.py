"""Where objects live: one port, and an implementation for each place."""
