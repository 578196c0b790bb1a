"""The task suites, as choices of the ``task`` group."""
