"""Predicted localisation confidence, which tempers the scores."""

from collections.abc import Callable
from typing import Any, Optional

import torch
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.models.losses import CrossEntropyLoss
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor

from ..heads.addition import Addition, TrainingBatch
from ..heads.first_stage import other_output_names
from ..heads.options import is_real
from ..heads.targets import StageTargets
from ..losses.layout import flatten_levels


@MODELS.register_module()
class LocalizationConfidence(Addition):
    """Predicts the IoU of a box with its object, and tempers its score by it.

    The box output supplies one more value v per anchor. With the final box b of an
    anchor (after the last regression, detached, not clipped) and its ground truth g,
    over the positives of the last stage whose labels there are,

        loss_iou = loss_weight · Σ BCE(sigmoid(v), IoU(b, g)) / N

    where N is that stage's normaliser. At inference the score of a box becomes

        score^(1 - beta) · sigmoid(v)^beta

    after ``score_thr`` and ``nms_pre``, which use the plain score. A fresh output gives
    0.5 everywhere, so boxes are ranked as without it.

    Sources: IoU-Net (Jiang et al., ECCV 2018) and IoU-aware RetinaNet (Wu et al., IVC
    2020), whose exponent of the classification score is 1 - beta.

    Args:
        beta: Share of the confidence in the score, 0 to 1. With 0, the results are
            those of the plain detector, bit for bit. Only inference reads it: choose it
            on the validation split without training again.
        loss_weight: Weight of ``loss_iou``.

    Raises:
        ValueError: If an option is invalid, or the head has a quality output of its own
            or does not suppress boxes by mmdet's own functions.
    """

    num_values = 1

    def __init__(self, beta: float = 0.6, loss_weight: float = 1.0) -> None:
        super().__init__()
        _check('beta', beta, 'a number from 0 to 1', _is_number(beta) and beta <= 1)
        positive = _is_number(loss_weight) and loss_weight > 0
        _check('loss_weight', loss_weight, 'a number above 0', positive)
        self.beta = beta
        self.loss_iou = CrossEntropyLoss(use_sigmoid=True, loss_weight=loss_weight)

    def attach(self, head: Any) -> None:
        """Refuse heads that have such an output already, or would not use this one."""
        super().attach(head)
        kind = type(head).__name__
        others = other_output_names(type(head))
        if others:
            raise ValueError(
                f'{kind} has outputs besides classes and boxes ({", ".join(others)}), '
                'so its scores include a quality already: remove LocalizationConfidence'
            )
        for name in ('_predict_by_feat_single', '_bbox_post_process'):
            owner = next(
                c
                for c in type(head).__mro__
                if name in vars(c) and issubclass(c, BaseDenseHead)
            )
            if owner is not BaseDenseHead:
                raise ValueError(
                    f"{owner.__name__} has its own {name} instead of mmdet's, and "
                    'would not use a confidence: remove LocalizationConfidence'
                )

    def losses(
        self, head: Any, batch: TrainingBatch, targets: dict[int, StageTargets]
    ) -> dict[str, Tensor]:
        """Compute ``loss_iou``: a differentiable zero if there are no positives."""
        target = targets[max(targets)]
        boxes, valid = head.final_boxes(batch)
        rows = target.box_rows(target.select_rows)
        logits = flatten_levels(self._logits(head, batch.bbox_preds), 1).flatten()
        logits = logits[rows].float()
        counts = (target.positive & valid).flatten()[rows]
        iou = target.positive_ious(boxes).flatten()[rows]
        iou = torch.where(counts, iou, 0)
        # A row that does not count may hold anything: its gradient is 0, not NaN.
        loss = self.loss_iou(
            torch.where(counts, logits, 0),
            iou,
            weight=counts.float(),
            avg_factor=target.avg_factor,
        )
        return dict(loss_iou=loss)

    def predict_inputs(self, head: Any, bbox_preds: list[Tensor]) -> dict:
        """Return mmdet's score factors: logits of each level, (N, A, H, W)."""
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
            base: ``_bbox_post_process`` of mmdet, or of the previous additions.
            results: ``bboxes`` (M, 4), ``scores`` (M,), ``labels`` (M,) and
                ``score_factors`` (M,), confidences from 0 to 1. Without the latter,
                scores stay as they are.
            cfg: mmdet's ``test_cfg``.
            rescale: Whether boxes are scaled back to the original image.
            with_nms: Whether boxes are suppressed.
            img_meta: Meta information of the image.

        Returns:
            ``bboxes``, ``scores`` and ``labels``, best first if suppressed.
        """
        if 'score_factors' in results:
            confidences = results.pop('score_factors')
            results.scores = self._temper(results.scores, confidences)
        return base(results, cfg, rescale, with_nms, img_meta)

    def _logits(self, head: Any, bbox_preds: list[Tensor]) -> list[Tensor]:
        """Return the logits of each level, (N, A, H, W)."""
        return [values.squeeze(2) for values in head.addition_values(self, bbox_preds)]

    def _temper(self, scores: Tensor, confidences: Tensor) -> Tensor:
        """Return the weighted geometric mean, (M,), computed in float32."""
        if self.beta == 0:
            return scores
        mean = scores.float() ** (1 - self.beta) * confidences.float() ** self.beta
        return mean.to(scores.dtype)


def _is_number(value: Any) -> bool:
    """Return whether the value is a finite, non-negative number."""
    return is_real(value) and 0 <= value < float('inf')


def _check(name: str, value: Any, rule: str, holds: bool) -> None:
    if not holds:
        raise ValueError(
            f'LocalizationConfidence: {name} must be {rule}, got {value!r}'
        )
