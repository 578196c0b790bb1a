"""Writes a pruned model as a checkpoint for other programs, with a model card."""
