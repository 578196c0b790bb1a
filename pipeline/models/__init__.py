"""Models: where weights and tokenizer come from. One file per kind of source, one YAML per model."""
