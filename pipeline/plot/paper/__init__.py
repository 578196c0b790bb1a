"""Figures and tables of the paper and of this project, one per file."""
