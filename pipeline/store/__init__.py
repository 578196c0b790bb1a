"""Storage of results: artifacts, locks, integrity, records, provenance, and the identity of a job."""
