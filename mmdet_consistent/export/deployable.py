"""A detector as one module: pixels in, boxes and scores out."""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from mmcv.cnn.bricks.conv2d_adaptive_padding import Conv2dAdaptivePadding
from mmdet.models.data_preprocessors import DetDataPreprocessor
from mmdet.models.dense_heads.anchor_head import AnchorHead
from mmdet.models.detectors import SingleStageDetector
from mmdet.models.task_modules.coders import (
    DeltaXYWHBBoxCoder,
    DistancePointBBoxCoder,
    TBLRBBoxCoder,
)
from mmengine.model import ImgDataPreprocessor
from torch import Tensor, nn

from ..heads.addition import Addition
from ..utils.errors import ConfigError
from .batch_predict import BY_ANCHOR, BY_SCORE, predict_batch, selects_anchors

# Methods that are called, or whose work is done here: mmdet's and our own are known.
PREDICTS = ['predict', 'predict_by_feat', '_bbox_post_process']
OURS = ('mmdet', 'mmdet_consistent')
CODERS = (DeltaXYWHBBoxCoder, TBLRBBoxCoder, DistancePointBBoxCoder)
PREPARES = (DetDataPreprocessor.forward, ImgDataPreprocessor.forward)
PROBE = (320, 352)  # height and width of an image in pixels


class DeployableDetector(nn.Module):
    """Preprocessing, network and decoding of a single-stage detector.

    What mmdet does per image and with data-dependent shapes is done here for the batch
    and with fixed shapes, so that it can be exported. Batch size, height and width are
    free; anchors are generated from the sizes of the features.

    Args:
        detector: A detector with one of mmdet's anchor-based heads, or a consistent
            version of them, in any variant; it is put into evaluation mode.
        nms: Whether a non-maximum suppression follows. If so, only the best candidates
            of each level are returned, otherwise all anchors.
        channels: Channels of the images: 3, or 1 for grayscale.

    Raises:
        ConfigError: If the detector has a part that can't be exported.
    """

    def __init__(
        self, detector: SingleStageDetector, nms: bool, channels: int = 3
    ) -> None:
        super().__init__()
        self.detector = detector
        self.eval()
        for obstacle in _obstacles(detector, nms, channels):
            raise ConfigError(obstacle)
        self.head: Any = detector.bbox_head
        self.preprocessor: Any = detector.data_preprocessor
        self.nms, self.channels = nms, channels
        self.test_cfg = self.head.test_cfg

    def forward(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
        """Detect objects in a batch of images.

        Args:
            images: Pixels, RGB or gray, (N, H, W, 3 or 1) uint8; smaller images are in
                the upper left corner.
            sizes: Height and width of each image in pixels, (N, 2) int64.

        Returns:
            Boxes (N, M, 4), xyxy in pixels of ``images``, clipped to the image, and
            scores (N, M, C). With ``nms`` they are of at most ``nms_pre`` candidates
            per level, where a score of -1 means that a box is no candidate for a class.
        """
        features = self.detector.extract_feat(self._preprocess(images, sizes))
        boxes, scores, clips = predict_batch(
            self.head, features, self.head(features), self.nms
        )
        if clips:
            limit = sizes.flip(1).repeat(1, 2)[:, None].float()
            boxes = torch.minimum(boxes.clamp(min=0), limit)
        smallest = self.test_cfg.get('min_bbox_size', -1) if self.nms else -1
        if smallest >= 0 and not selects_anchors(self.head):  # PAA doesn't read it
            has_area = (boxes[..., 2:] > boxes[..., :2]).all(dim=-1, keepdim=True)
            scores = scores.masked_fill(~has_area, -1.0)
        return boxes, scores

    def _preprocess(self, images: Tensor, sizes: Tensor) -> Tensor:
        """Normalise and pad as the detector does. Return (N, 3 or 1, H', W')."""
        preprocessor, pad_value = self.preprocessor, float(self.preprocessor.pad_value)
        x = images.permute(0, 3, 1, 2).float()
        if not preprocessor._channel_conversion:  # the detector expects BGR, or gray
            x = x.flip(1)
        x = (x - getattr(preprocessor, 'mean', 0.0)) / getattr(preprocessor, 'std', 1.0)
        height, width = x.shape[-2:]
        rows = torch.arange(height, device=x.device)[None, :] < sizes[:, :1]
        columns = torch.arange(width, device=x.device)[None, :] < sizes[:, 1:]
        inside = rows[:, None, :, None] & columns[:, None, None, :]
        # (Not torch.where: torch 2.0 exports it with a double for a number.)
        x = x.masked_fill(~inside, pad_value)
        divisor = preprocessor.pad_size_divisor
        if divisor > 1:
            x = F.pad(x, (0, -width % divisor, 0, -height % divisor), value=pad_value)
        return x


def _obstacles(
    detector: SingleStageDetector, nms: bool, channels: int
) -> Iterator[str]:
    """Yield what is in the way of an export. Only the first one is reliable."""
    head: Any = getattr(detector, 'bbox_head', None)
    part = f'model.type={type(detector).__name__!r} has no bbox_head and'
    if head is not None:
        part = f'model.bbox_head.type={type(head).__name__!r}'
    if not isinstance(head, AnchorHead):
        yield (
            f"{part} cannot be exported: only mmdet's anchor-based heads and heads "
            'derived from them can'
        )
    if type(head)._predict_by_feat_single not in (*BY_SCORE, *BY_ANCHOR):
        yield (
            f'{part} cannot be exported: it has its own _predict_by_feat_single(), and '
            "the exported file can only do that of mmdet's BaseDenseHead, GFLHead or "
            'PAAHead'
        )
    owners: list[tuple[Any, str]] = [(head, method) for method in PREDICTS]
    for owner, method in [*owners, (detector, 'predict')]:
        if getattr(type(owner), method).__module__.partition('.')[0] not in OURS:
            yield (
                f'{type(owner).__name__} cannot be exported: it has its own {method}(),'
                ' which the exported file would not do'
            )
    yield from _addition_obstacles(head)
    yield from _part_obstacles(detector, head)
    yield from _image_obstacles(detector, channels)
    if nms:
        yield from _suppression_obstacles(head.test_cfg or {})


def _addition_obstacles(head: Any) -> Iterator[str]:
    """Yield the additions that the exported file would not follow."""
    for index, addition in enumerate(getattr(head, 'additions', ())):
        reason = addition.not_exported()
        changes_scores = type(addition).post_process is not Addition.post_process
        if changes_scores and selects_anchors(head):
            reason = f'{type(head).__name__} is exported without its post_process()'
        if reason:
            yield f'model.bbox_head.additions.{index}: {reason}'


def _image_obstacles(detector: SingleStageDetector, channels: int) -> Iterator[str]:
    """Yield why the detector does not take images of so many channels."""
    weight = next(detector.parameters())
    images = [torch.zeros(channels, *PROBE, dtype=torch.uint8, device=weight.device)]
    part = 'data_preprocessor'
    try:
        prepared = detector.data_preprocessor(dict(inputs=images))['inputs']
        part = 'backbone'
        with torch.no_grad():
            detector.extract_feat(prepared)
    except (RuntimeError, AssertionError, IndexError) as error:
        count = 'one channel' if channels == 1 else 'three channels'
        yield (
            f'model.{part} cannot be exported: it takes no images of {count}, as the '
            f'test pipeline loads them ({error})'
        )


def _part_obstacles(detector: SingleStageDetector, head: Any) -> Iterator[str]:
    """Yield the parts that the exported file would not follow."""
    preprocessor: Any = detector.data_preprocessor
    coders = getattr(head.bbox_coder, 'stages', [head.bbox_coder])
    for field, value, fits in (
        *(('bbox_head.bbox_coder', x, isinstance(x, CODERS)) for x in coders),
        (
            'bbox_head.loss_cls',  # its scores may be neither sigmoid nor softmax
            head.loss_cls,
            not getattr(head.loss_cls, 'custom_cls_channels', False),
        ),
        ('data_preprocessor', preprocessor, type(preprocessor).forward in PREPARES),
    ):
        if not fits:
            yield f'model.{field}.type={type(value).__name__!r} cannot be exported'
    if any(isinstance(module, Conv2dAdaptivePadding) for module in detector.modules()):
        yield (
            'conv_cfg=dict(type="Conv2dAdaptivePadding") cannot be exported: its '
            'padding would be that of one image size'
        )


def _suppression_obstacles(cfg: dict) -> Iterator[str]:
    """Yield the fields of a test_cfg that the exported suppression can't follow."""
    nms = cfg.get('nms') or {}
    # mmcv's defaults of the fields that the exported file doesn't have.
    plain = dict(type='nms', class_agnostic=False, offset=0)
    rules: list[tuple[str, Any, str, bool]] = [
        (f'nms.{field}', value, repr(plain.get(field)), value == plain.get(field))
        for field, value in nms.items()
        if field not in ('iou_threshold', 'max_num', 'score_threshold', 'split_thr')
    ]
    iou, most = nms.get('iou_threshold'), nms.get('max_num', -1)
    score, limit = nms.get('score_threshold', 0), cfg.get('max_per_img', -1)
    nms_pre, smallest = cfg.get('nms_pre', -1), cfg.get('min_bbox_size', -1)
    floor = cfg.get('score_thr', 0)
    rules += [
        ('nms.iou_threshold', iou, 'a number', iou is not None),
        ('nms.max_num', most, '-1', most <= 0),
        ('nms.score_threshold', score, '0', score <= 0),
        ('max_per_img', limit, 'above 0', limit > 0),
        ('nms_pre', nms_pre, 'above 0', nms_pre > 0),
        ('min_bbox_size', smallest, '0 or -1', smallest <= 0),
        ('score_thr', floor, 'at least 0', floor >= 0),
    ]
    for field, value, rule, holds in rules:
        if not holds:
            yield (
                f'model.test_cfg.{field} must be {rule} for an export with '
                f'suppression, got {value!r}; change it with --cfg-options, or export '
                'without suppression: --no-nms'
            )
