"""Later stages for FreeAnchor, which learns what to match."""

from typing import Any

from mmdet.models.task_modules.samplers import PseudoSampler
from mmengine.config import ConfigDict

from .generic import GenericStages


class FreeAnchorStages(GenericStages):
    """Later stages of :class:`mmdet.models.dense_heads.FreeAnchorRetinaHead`.

    The base head assigns nothing, and trains without a ``train_cfg``.
    """

    train_cfg: Any
    assigner: Any
    sampler: Any

    def build_stages(self, *args: Any) -> None:
        """Build the stages, by mmdet's usual values of what ``train_cfg`` lacks."""
        if not self.train_cfg:
            self.train_cfg = ConfigDict(allowed_border=-1, pos_weight=-1)
            self.assigner, self.sampler = None, PseudoSampler(context=self)
        super().build_stages(*args)
