"""Which arithmetic a run uses: bfloat16 where it was measured to gain, float32 elsewhere."""

import torch

from trainable.config import TrainConfig

GAINS_ON_AMX = ("resnet18", "resnet34", "resnet50", "resnet101", "mobilenet_v2", "convnext_tiny")
"""Encoders whose training step is faster in bfloat16 on CPUs with AMX (`make bench`, docs/LOG.md). The depthwise
convolutions of the others are not: they gain nothing there, or lose."""


def chosen_precision(config: TrainConfig) -> str:
    """`float32` or `bfloat16`; `auto` is decided by device and encoder alone, so that a machine decides one way always.

    CPUs without AMX were not measured and stay with float32. That GPUs with bfloat16 units (compute capability 8) gain
    is their makers' word, not yet our measurement (`bench/gpu.py`).
    """
    if config.precision != "auto":
        return config.precision
    if config.device == "cuda":
        return "bfloat16" if torch.cuda.get_device_capability() >= (8, 0) else "float32"
    has_amx = bool(torch.cpu.get_capabilities().get("amx_bf16"))
    return "bfloat16" if has_amx and config.encoder in GAINS_ON_AMX else "float32"


def autocast(config: TrainConfig) -> torch.autocast:
    """The context in which the model runs."""
    return torch.autocast(config.device, torch.bfloat16, enabled=chosen_precision(config) == "bfloat16")
