"""Evaluation tasks and their local data."""
