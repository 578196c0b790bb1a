"""What the fork server imports once, so that every job's process begins with it. Imported by the fork server alone.

Nothing here may start a thread or touch a GPU: neither survives a fork.
"""

from __future__ import annotations

import faulthandler
import gc
import os
from contextlib import suppress
from importlib import import_module

from pipeline.common.quiet import quiet_libraries
from pipeline.common.stopping import hold_signals

# The rest comes with these, or is light. A package that is broken or missing is the job's to report.
_MODULES = ("pipeline.run.job", "lm_eval", "lm_eval.tasks", "lm_eval.models.huggingface", "datasets", "wandb")

# Signals to the whole group of processes are for the sweep and its jobs; a job lets them in when it is ready for them.
hold_signals()
quiet_libraries()
# Libraries ask at import whether there is a GPU: the driver would be opened for that, if not told otherwise.
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
# Read by wandb when it is imported.
os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
os.environ.setdefault("WANDB_SILENT", "true")
for name in _MODULES:
    with suppress(Exception):
        import_module(name)
# A crash in compiled code says where it was.
faulthandler.enable()
# What is here stays: without the collector's marks, its pages remain shared with the jobs.
gc.freeze()
