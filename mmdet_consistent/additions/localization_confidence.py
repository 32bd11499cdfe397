"""How well a box fits, as one more output, and suppression that goes by it."""

import inspect
from collections.abc import Callable
from typing import Any, Optional

import torch
from mmdet.models.dense_heads import AnchorHead
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.models.losses import CrossEntropyLoss
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor, nn

from ..heads.addition import Addition, TrainingBatch
from ..heads.options import is_real
from ..heads.targets import StageTargets
from ..losses.layout import flatten_levels


@MODELS.register_module()
class LocalizationConfidence(Addition):
    """Predicts the IoU of a box with its object; scores are tempered by it.

    One more value v for each anchor, given by the box output. With the final box b
    of an anchor (after the last regression, detached, not clipped) and its ground
    truth g, over the positives of the last stage whose labels there are,

        loss_iou = loss_weight · Σ BCE(sigmoid(v), IoU(b, g)) / N

    with that stage's N. At inference the score of a box becomes

        score^(1 - beta) · sigmoid(v)^beta

    after ``score_thr`` and ``nms_pre``, which see the plain score. A fresh output
    gives 0.5 everywhere: boxes are ranked as without it.

    Sources: IoU-Net (Jiang et al., ECCV 2018) and IoU-aware RetinaNet (Wu et al.,
    IVC 2020), whose exponent of the classification score is 1 - beta.

    Args:
        beta: Share of the confidence in the score, 0 to 1; with 0, results are those
            of the plain detector, bit for bit. Read at inference alone: it can be
            chosen on the validation split, without training again.
        loss_weight: Weight of ``loss_iou``.

    Raises:
        ValueError: If an option is impossible, if the head has a quality output of
            its own or doesn't suppress by mmdet's own functions.
    """

    values = 1

    def __init__(self, beta: float = 0.6, loss_weight: float = 1.0) -> None:
        super().__init__()
        _check('beta', beta, 'a number from 0 to 1', _is_number(beta) and beta <= 1)
        _check('loss_weight', loss_weight, 'a number above 0', _is_number(loss_weight))
        _check('loss_weight', loss_weight, 'a number above 0', loss_weight > 0)
        self.beta = beta
        self.loss_iou = CrossEntropyLoss(use_sigmoid=True, loss_weight=loss_weight)

    def attach(self, head: nn.Module) -> None:
        """Refuse heads that have such an output, or wouldn't use this one."""
        super().attach(head)
        kind = type(head).__name__
        others = _other_outputs(type(head))
        if others:
            raise ValueError(
                f'{kind} has outputs of its own besides classes and boxes, '
                f'{", ".join(others)}: its scores have a quality in them already; '
                'leave LocalizationConfidence out'
            )
        for name in ('_predict_by_feat_single', '_bbox_post_process'):
            owner = next(
                c
                for c in type(head).__mro__
                if name in vars(c) and issubclass(c, BaseDenseHead)
            )
            if owner is not BaseDenseHead:
                raise ValueError(
                    f"{owner.__name__} has its own {name} in place of mmdet's, which "
                    'would not use a confidence: leave LocalizationConfidence out'
                )

    def losses(
        self, head: nn.Module, batch: TrainingBatch, targets: dict[int, StageTargets]
    ) -> dict[str, Tensor]:
        """``loss_iou``, a scalar; 0 with a graph where there is no positive."""
        target = targets[max(targets)]
        boxes, usable = head.final_boxes(batch)
        logits = flatten_levels(self._logits(head, batch.bbox_preds), 1).flatten()
        logits = logits[target.rows].float()
        counts = (target.positive & usable).flatten()[target.rows]
        iou = target.positive_ious(boxes).flatten()[target.rows]
        iou = torch.where(counts, iou, 0)
        # A row that doesn't count may hold anything: its gradient is 0, not NaN.
        loss = self.loss_iou(
            torch.where(counts, logits, 0),
            iou,
            weight=counts.float(),
            avg_factor=target.avg_factor,
        )
        return dict(loss_iou=loss)

    def predict_inputs(self, head: nn.Module, bbox_preds: list[Tensor]) -> dict:
        """Score factors, as mmdet calls them: logits of each level, (N, A, H, W)."""
        if self.beta == 0:
            return {}
        return dict(score_factors=self._logits(head, bbox_preds))

    def post_process(
        self,
        base: Callable[..., InstanceData],
        results: InstanceData,
        cfg: ConfigDict,
        rescale: bool = False,
        with_nms: bool = True,
        img_meta: Optional[dict] = None,
    ) -> InstanceData:
        """Temper the scores of one image's boxes, then suppress them.

        Args:
            base: mmdet's ``_bbox_post_process``, or that of the additions before.
            results: ``bboxes`` (M, 4), ``scores`` (M,), ``labels`` (M,) and
                ``score_factors`` (M,), confidences from 0 to 1. Without these they are
                suppressed by mmdet, as they are.
            cfg: mmdet's ``test_cfg``.
            rescale: Whether boxes go back to the original image.
            with_nms: Whether boxes are suppressed.
            img_meta: mmdet's.

        Returns:
            ``bboxes``, ``scores`` and ``labels``, best first where suppressed.
        """
        if 'score_factors' not in results:  # not used, or tempered before
            return base(results, cfg, rescale, with_nms, img_meta)
        results.scores = self._temper(results.scores, results.pop('score_factors'))
        return base(results, cfg, rescale, with_nms, img_meta)

    def final_scores(self, scores: Tensor, values: Tensor) -> Tensor:
        """Tempered scores (…, K), from plain ones and one logit (…, 1)."""
        return self._temper(scores, values.sigmoid())

    def _logits(self, head: nn.Module, bbox_preds: list[Tensor]) -> list[Tensor]:
        """Logits of each level, (N, A, H, W)."""
        return [values.squeeze(2) for values in head.values_of(self, bbox_preds)]

    def _temper(self, scores: Tensor, confidences: Tensor) -> Tensor:
        """The geometric mean, weighted, in float32: (M,), in the scores' dtype."""
        if self.beta == 0:
            return scores
        mean = scores.float() ** (1 - self.beta) * confidences.float() ** self.beta
        return mean.to(scores.dtype)


def _is_number(value: Any) -> bool:
    """Whether it is a finite number that isn't negative."""
    return is_real(value) and 0 <= value < float('inf')


def _check(name: str, value: Any, rule: str, holds: bool) -> None:
    if not holds:
        raise ValueError(
            f'LocalizationConfidence: {name} must be {rule}, got {value!r}'
        )


def _other_outputs(head: type) -> list[str]:
    """What mmdet's head gives its loss besides classes and boxes, by name."""
    for owner in head.__mro__:
        if issubclass(owner, AnchorHead) and 'loss_by_feat' in vars(owner):
            names = list(inspect.signature(owner.loss_by_feat).parameters)
            if 'batch_gt_instances' in names:
                return names[3 : names.index('batch_gt_instances')]
    return []
