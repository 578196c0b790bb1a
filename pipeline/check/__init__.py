"""Checks that refuse a wrong command line at once, with every problem and the way out."""
