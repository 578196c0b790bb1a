"""Hidden states under the four protocols."""
