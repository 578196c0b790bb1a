"""The matched suite: the same items asked twice, by greedy generation and by multiple choice.

Both forms of an item show the model the same few-shot prompt, character for character; only the scoring
differs: exact match of the generated line, or the likeliest of four options. `suite` lists the tasks and
imports nothing heavy, `data` hands the items to lm-eval, `generate` writes them from word lists and a seed.
"""
