"""Other libraries that prune, each in a process and an environment of its own, beside ours."""
