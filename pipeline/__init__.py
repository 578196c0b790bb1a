"""Prune a language model, evaluate it, and measure how its representations change."""
