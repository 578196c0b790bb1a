"""Retrieval evaluation: data sets in BEIR format, embeddings of the model itself, exact search, trec_eval's metrics."""
