"""The command line: ``python -m pipeline.main pruner=wanda sparsity=0.5``."""

from __future__ import annotations

import logging
import sys

from pipeline.run.command import main

if __name__ == "__main__":
    logging.captureWarnings(True)
    sys.exit(main())
