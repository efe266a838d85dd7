"""Runs Pods as local processes."""
