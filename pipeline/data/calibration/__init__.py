"""Calibration sets: given texts, and the dense model's own continuations."""
