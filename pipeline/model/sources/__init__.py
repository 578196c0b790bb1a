"""Where models come from: the hub, a folder, an installed package, or random weights."""
