"""Memory that torch's profiler sees."""

from __future__ import annotations

import torch
from torch.profiler import ProfilerActivity, profile


def allocated(work) -> int:
    """The most bytes that are allocated at a time."""
    with torch.inference_mode(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        kept = work()
    del kept
    events = [event for event in found.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most
