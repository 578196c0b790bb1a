"""Similarity, orthogonality and KL of captured states in embedding, logit and probability space."""
