"""Commands on an outputs folder: list jobs, show, compare, verify and remove them, and free space."""
