"""Runs jobs and sweeps: one job from top to bottom, composition, launchers, closing tables."""
