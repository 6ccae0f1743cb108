"""How weights are moved: the optimizer, and the learning rate at every step."""

import math

import torch
from torch import nn

from trainable.config import TrainConfig

OPTIMIZERS: dict[str, type[torch.optim.Adam]] = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


def build_optimizer(config: TrainConfig, model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer over what is trained; fused, which takes a fifth of the default's time."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    make = OPTIMIZERS[config.optimizer]
    return make(trained, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True)


def rate_factor(config: TrainConfig, progress: float, step: float) -> float:
    """What the learning rate is multiplied by at a step: a function of progress alone, so that there is no state.

    Linear warm-up ends at 1 with the last step of the warm-up; the cosine runs over what is left.

    Args:
        config: schedule, epochs and warm-up.
        progress: epochs since the start, fractions included.
        step: the part of an epoch that one step is.
    """
    if progress < config.warmup_epochs:
        return min(1.0, (progress + step) / config.warmup_epochs)
    if config.schedule == "constant":
        return 1.0
    return (1 + math.cos(math.pi * (progress - config.warmup_epochs) / (config.epochs - config.warmup_epochs))) / 2
