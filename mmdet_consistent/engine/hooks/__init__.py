"""Training hooks."""

from .config_check import ConfigCheckHook
from .consistency import ConsistencyHook
from .finite_loss import FiniteLossHook
from .safe_checkpoint import SafeCheckpointHook
from .seed import SeedHook
from .stage_weight import StageLossWeightHook

__all__ = [
    'ConfigCheckHook',
    'ConsistencyHook',
    'FiniteLossHook',
    'SafeCheckpointHook',
    'SeedHook',
    'StageLossWeightHook',
]
