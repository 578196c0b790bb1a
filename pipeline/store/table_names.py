"""File names of the tables, in artifacts and in ``outputs/tables``, and which artifact holds which."""

from __future__ import annotations

# A decision with its scores of units, as JSON.
DECISION = "decision.json"
SCORES, MEASURES, TRAJECTORIES, JOBS = "scores.parquet", "measures.parquet", "trajectories.parquet", "jobs.parquet"
SET_MEASURES = "set_measures.parquet"
OPTIONS, OPTION_TOKENS, PROMPTS = "options.parquet", "option_tokens.parquet", "prompts.parquet"
COMPARISONS, ITEMS, RANKINGS = "comparisons.parquet", "items.parquet", "rankings.parquet"
# Beside the comparisons: how answers change. Beside the measures: final states over positions.
FIDELITY, AGREEMENT = "fidelity.parquet", "agreement.parquet"
# The tables of captured states, and the role of the artifact that holds each.
STATES = {
    MEASURES: "measures",
    SET_MEASURES: "set measures",
    AGREEMENT: "measures",
    TRAJECTORIES: "measures",
    PROMPTS: "measures",
    OPTIONS: "option measures",
    OPTION_TOKENS: "option measures",
}
