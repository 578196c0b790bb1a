"""Where results are kept: artifacts, locks, integrity, records, provenance, and the identity of a job."""
