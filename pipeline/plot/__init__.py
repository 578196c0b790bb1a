"""Draws the tables: the drawing kit and the command. Knows neither torch nor hydra."""
