"""The pruners, one concept per file."""
