"""Pruners: one file and one YAML each."""
