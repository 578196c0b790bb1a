"""Chooses what to take out of a model, and takes it out."""
