"""The sandbox for generated programs, and their scores."""
