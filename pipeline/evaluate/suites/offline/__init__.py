"""Real benchmarks from data that installed Python packages carry."""
