"""What is in an outputs folder: find jobs, look at them, compare them, check them, and make room."""
