"""Texts that a model is given."""
