"""Evaluation of a model on tasks, and comparison of its scores with the dense model's."""
