"""The configuration of a job: its schema, components, choices, sparsity, prompts and experiments."""
