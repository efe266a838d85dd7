"""Puts store, server, controllers, runtime and node together in one process."""
