"""Imports of the fork server, with which every job's process begins. Only the fork server imports this module.

Nothing here may start a thread or touch a GPU: neither survives a fork.
"""

from __future__ import annotations

import faulthandler
import os
from contextlib import suppress
from importlib import import_module

from pipeline.common.garbage import importing
from pipeline.common.quiet import quiet_libraries
from pipeline.common.stopping import hold_signals


def preload(*names: str) -> None:
    """Import modules. The job reports a package that is broken or missing.

    All objects so far stay: without the collector's marks, their pages remain shared with the jobs.
    """
    with importing():
        for name in names:
            with suppress(Exception):
                import_module(name)


# Signals to the whole process group are for the sweep and its jobs; a job lets them in when it is ready.
hold_signals()
quiet_libraries()
# Libraries ask at import whether there is a GPU, which would open the driver without this setting.
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
# Read by wandb when it is imported.
os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
os.environ.setdefault("WANDB_SILENT", "true")
# The rest comes with these, or is light.
preload("pipeline.run.job", "wandb.sdk.launch.inputs.internal")
# A crash in compiled code prints where it was.
faulthandler.enable()
