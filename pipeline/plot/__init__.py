"""Figures drawn from the tables: the drawing kit and its command. Imports neither torch nor hydra."""
