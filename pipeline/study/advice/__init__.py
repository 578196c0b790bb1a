"""How far a model can be pruned before a task suffers: what is measured where, what is predicted, what is advised."""
