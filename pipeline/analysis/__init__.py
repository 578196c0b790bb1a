"""Numbers from tables: means, theorems, strata, criteria, prediction."""
