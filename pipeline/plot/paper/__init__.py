"""The figures and tables of the paper and of this project, one a file."""
