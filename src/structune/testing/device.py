"""On which device tests run."""

from __future__ import annotations

import os

import torch

VARIABLE = "STRUCTUNE_TEST_DEVICE"
"""The environment variable that names it; `make test-gpu` sets it to cuda."""

DEVICE = torch.device(os.environ.get(VARIABLE, "cpu"))
"""Where blocks, generators, inputs and updates to test with are made."""
