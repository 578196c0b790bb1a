"""The dense model and how to look inside it: blocks, residual stream, head, generation."""
