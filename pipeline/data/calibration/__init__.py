"""Calibration sets: given texts, and what the dense model writes itself."""
