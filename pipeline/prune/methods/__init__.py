"""The pruners, one concept a file."""
