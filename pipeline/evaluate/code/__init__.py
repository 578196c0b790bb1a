"""Runs generated programs in a sandbox."""
