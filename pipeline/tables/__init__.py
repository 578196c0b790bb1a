"""The tidy tables: collected from jobs, read by figures, with labels for people."""
