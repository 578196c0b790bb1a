"""Asks a model tasks, and sets its scores beside the dense model's."""
