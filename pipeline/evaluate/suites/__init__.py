"""The task suites: which tasks there are to ask."""
