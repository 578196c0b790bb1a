"""Which setting to use: prediction and advice."""
