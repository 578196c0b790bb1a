"""What a model is made of, and what can be done with it."""
