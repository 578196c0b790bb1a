"""Columns that identify a job in every table, and the columns of all tables that hold text."""

from __future__ import annotations

# Columns to group by, in every table: WHO comes before the table's own columns, HOW and IDS after them.
WHO = [
    "model",
    "model_revision",
    "pruner",
    "pruner_options",
    "sparsity",
    "sparsity_value",
    "unit",
    "seed",
    "pruner_draw",
]
HOW = [
    "calibration",
    "calibration_options",
    "calibration_draw",
    "calibration_seed",
    "sequences",
    "length",
    "dtype",
    "shots",
    "chat_template",
    "limit",
]
IDS = ["variant_id", "settings_id", "model_id", "job", "commit", "started", "settings"]
# Columns of text; all others hold numbers or booleans.
WORDS = {
    "model", "model_revision", "pruner", "pruner_options", "sparsity", "unit", "calibration", "calibration_options",
    "dtype", *IDS, "base_id", "changed", "finished", "status", "kind", "task", "metric", "method", "verdict",
    "protocol", "prompt", "sublayer", "origin", "set", "role", "text", "dense_text", "pruned_text", "format",
    "data", "measure", "dropped",
}  # fmt: skip
