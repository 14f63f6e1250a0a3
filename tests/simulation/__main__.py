"""`python -m simulation SEED [SEED_END]`: run seeds; one seed alone is told in full."""

import logging
import os
import sys
import time
import traceback

from .network import run_seed

if os.environ.get("PYTHONHASHSEED") != "0":  # as `make` has it: sets of texts have an order too
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    os.execve(sys.executable, [sys.executable, "-m", "simulation", *sys.argv[1:]], environment)
logging.disable(logging.CRITICAL)
first = int(sys.argv[1])
last = int(sys.argv[2]) if len(sys.argv) > 2 else None
if last is None:
    run_seed(first, verbose=True)
else:
    started, failed, frames = time.process_time(), 0, 0
    for seed in range(first, last):
        try:
            frames += run_seed(seed).oracle.frames
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            failed += 1
            where = traceback.extract_tb(error.__traceback__)[-1]
            print(seed, type(error).__name__, error, f"{where.name}:{where.lineno}")
    print(f"{failed} failed, {frames} frames, {time.process_time() - started:.1f} s CPU")
