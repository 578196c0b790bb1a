"""Prediction and advice: which setting to use."""
