"""How many examples property tests try: few by default, many with ``HYPOTHESIS_PROFILE=thorough``."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

_SLOW = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.function_scoped_fixture]
settings.register_profile("quick", max_examples=25, deadline=None, suppress_health_check=_SLOW)
settings.register_profile("thorough", max_examples=1500, deadline=None, suppress_health_check=_SLOW)


def chosen(share: float = 1.0) -> settings:
    """The settings of a test, with that share of the profile's examples; for tests whose examples take longer."""
    profile = settings.get_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))
    return settings(profile, max_examples=max(1, round(share * profile.max_examples)))
