"""Calibration text: what pruners look at. One file per source, one YAML each."""
