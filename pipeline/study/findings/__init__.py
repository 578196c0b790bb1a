"""Measured numbers of the README and of docs/: the table that holds them, and the pages that show them."""
