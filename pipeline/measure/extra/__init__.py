"""Further measures, each a choice of ``conf/measures`` that ``measure.extra`` adds to a job."""
