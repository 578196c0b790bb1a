"""Advice on how far a model can be pruned before a task suffers: measurement, prediction, recommendation."""
