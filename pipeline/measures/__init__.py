"""Measures of deviation: pure functions on tensors, one value a position, the dense model always first."""
