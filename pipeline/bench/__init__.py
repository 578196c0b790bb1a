"""Speed as ratios to a baseline in the same process."""
