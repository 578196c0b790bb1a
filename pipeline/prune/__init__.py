"""Chooses what to remove from a model, and removes it."""
