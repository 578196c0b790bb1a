"""Statistics computed from tables: means, theorems, strata, criteria, prediction."""
