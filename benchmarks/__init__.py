"""Measurements against peers, side by side in one run; `python -m benchmarks` writes docs/benchmarks.md."""

import os

# As a worker starts every run: OpenMP's threads would else spin at barriers, and a spinning thread counts as work.
# PyTorch reads it when it is loaded, and the peers' processes inherit it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
