"""Model sources: the hub, a folder, an installed package, or random weights."""
