"""Comparison of pruning criteria over models, budgets, texts and halves of the tasks."""
