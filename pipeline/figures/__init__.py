"""Figures drawn from `outputs/tables` alone: no model, no accelerator, no torch."""
