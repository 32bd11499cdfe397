"""A detector as one module: pixels in, boxes and scores out."""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from mmdet.models.data_preprocessors import DetDataPreprocessor
from mmdet.models.dense_heads import RetinaHead, SSDHead
from mmdet.models.detectors import SingleStageDetector
from mmdet.models.task_modules.coders import DeltaXYWHBBoxCoder, TBLRBBoxCoder
from mmengine.model import ImgDataPreprocessor
from torch import Tensor, nn

from ..heads import ConsistentMixin
from ..utils.errors import ConfigError

# What DeployableDetector does in their place; it knows mmdet's and our own.
PREDICTS = [
    'predict',
    'predict_by_feat',
    '_predict_by_feat_single',
    '_bbox_post_process',
]
OURS = ('mmdet', 'mmdet_consistent')
CODERS = (DeltaXYWHBBoxCoder, TBLRBBoxCoder)
PREPARES = (DetDataPreprocessor.forward, ImgDataPreprocessor.forward)
PROBE = (320, 352)  # height and width of an image in pixels


class DeployableDetector(nn.Module):
    """Preprocessing, network and decoding of a single-stage detector.

    What mmdet does per image and with data-dependent shapes is done here for the batch
    and with fixed shapes, so that it can be exported. Batch size, height and width are
    free; anchors are generated from the sizes of the features.

    Args:
        detector: RetinaNet, SSD, or a consistent version of them, in any variant; it
            is put into evaluation mode.
        nms: Whether a non-maximum suppression follows. If so, only the best candidates
            of each level are decoded and returned, otherwise all anchors.

    Raises:
        ConfigError: If the detector has a part that can't be exported.
    """

    def __init__(self, detector: SingleStageDetector, nms: bool) -> None:
        super().__init__()
        self.detector = detector
        self.eval()
        for obstacle in _obstacles(detector, nms):
            raise ConfigError(obstacle)
        self.head: Any = detector.bbox_head
        self.preprocessor: Any = detector.data_preprocessor
        self.nms = nms
        self.test_cfg = self.head.test_cfg

    def forward(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, ...]:
        """Detect objects in a batch of images.

        Args:
            images: Pixels, RGB, (N, H, W, 3) uint8; smaller images are in the upper
                left corner.
            sizes: Height and width of each image in pixels, (N, 2) int64.

        Returns:
            Boxes (N, A, 4), xyxy in pixels of ``images``, clipped to the image, and
            scores (N, A, C). With ``nms``: boxes (N, M, 4), scores (N, M) and
            labels (N, M) int64 of at most ``nms_pre`` candidates per level, where
            entries with score -1 are no candidates.
        """
        features = self.detector.extract_feat(self._preprocess(images, sizes))
        cls_scores, bbox_preds = self.head(features)
        rows = [
            self._level(level, *maps)
            for level, maps in enumerate(zip(features, cls_scores, bbox_preds))
        ]
        boxes, scores, *labels = (torch.cat(part, dim=1) for part in zip(*rows))
        last_coder = getattr(self.head.bbox_coder, 'stages', [self.head.bbox_coder])[-1]
        if getattr(last_coder, 'clip_border', True):
            limit = sizes.flip(1).repeat(1, 2)[:, None].float()
            boxes = torch.minimum(boxes.clamp(min=0), limit)
        if self.nms and self.test_cfg.get('min_bbox_size', -1) >= 0:
            has_area = (boxes[..., 2:] > boxes[..., :2]).all(dim=-1)
            scores = scores.masked_fill(~has_area, -1.0)
        return boxes, scores, *labels

    def _preprocess(self, images: Tensor, sizes: Tensor) -> Tensor:
        """Normalise and pad as the detector does. Return (N, 3, H', W')."""
        preprocessor, pad_value = self.preprocessor, float(self.preprocessor.pad_value)
        x = images.permute(0, 3, 1, 2).float()
        if not preprocessor._channel_conversion:  # the detector expects BGR
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

    def _level(
        self, level: int, features: Tensor, logits: Tensor, deltas: Tensor
    ) -> tuple[Tensor, ...]:
        """Return boxes and scores of a level; with ``nms`` of its best candidates.

        Args:
            level: Index of the level.
            features: (N, F, H, W).
            logits: (N, A·C, H, W), of a cascade (N, K·A·C, H, W); with a softmax, C
                includes the background.
            deltas: (N, A·(S·4 + E), H, W).
        """
        head, coder = self.head, self.head.bbox_coder
        anchors = head.prior_generator.single_level_grid_priors(
            features.shape[-2:], level, dtype=deltas.dtype, device=deltas.device
        )
        # Tracing takes shapes of what a head has reshaped for constants.
        batch = features.shape[0]
        if isinstance(head, ConsistentMixin):
            [logits] = head.merge_scores([logits])
        logits = _rows(batch, logits, head.cls_out_channels)
        is_sigmoid = head.use_sigmoid_cls
        scores = logits.sigmoid() if is_sigmoid else logits.softmax(dim=-1)[..., :-1]
        rows = _rows(batch, deltas, coder.encode_size)
        if self.nms:
            # Padding with rows that are no candidates lets top-k take a fixed number.
            limit, classes = self.test_cfg.nms_pre, scores.shape[-1]
            flat = F.pad(scores.flatten(1), (0, limit), value=-1.0)
            best, index = flat.topk(limit, dim=1)
            index = index.masked_fill(best < 0, 0)
            row = index // classes
            anchors = anchors[row]
            rows = rows.gather(1, row[..., None].repeat(1, 1, rows.shape[-1]))
            scores = best.clamp(min=0)[..., None]
        else:
            # (expand() would fix the batch size while tracing.)
            anchors = anchors.repeat(batch, 1, 1)
        boxes = coder.decode(
            anchors.reshape(-1, 4), rows.reshape(-1, coder.encode_size)
        ).reshape(batch, -1, 4)
        for addition in getattr(head, 'additions', ()):
            values = rows[..., head.addition_slice(addition)]
            scores = addition.final_scores(scores, values)
        if not self.nms:
            return boxes, scores
        rejected = best <= self.test_cfg.get('score_thr', 0)
        return boxes, scores[..., 0].masked_fill(rejected, -1.0), index % classes


def _rows(batch: int, x: Tensor, depth: int) -> Tensor:
    """Reshape (N, A·D, H, W) to (N, H·W·A, D), one row per anchor in their order."""
    return x.permute(0, 2, 3, 1).reshape(batch, -1, depth)


def _obstacles(detector: SingleStageDetector, nms: bool) -> Iterator[str]:
    """Yield what is in the way of an export. Only the first one is reliable."""
    head: Any = getattr(detector, 'bbox_head', None)
    part = f'model.type={type(detector).__name__!r} has no bbox_head and'
    if head is not None:
        part = f'model.bbox_head.type={type(head).__name__!r}'
    if not isinstance(head, (RetinaHead, SSDHead)):
        yield (
            f"{part} cannot be exported: only mmdet's RetinaHead and SSDHead and heads "
            'derived from them can'
        )
    owners: list[tuple[Any, str]] = [(head, method) for method in PREDICTS]
    for owner, method in [*owners, (detector, 'predict')]:
        if getattr(type(owner), method).__module__.partition('.')[0] not in OURS:
            yield (
                f'{type(owner).__name__} cannot be exported: it has its own {method}(),'
                ' which the exported file would not do'
            )
    for index, addition in enumerate(getattr(head, 'additions', ())):
        reason = addition.not_exported()
        if reason:
            yield f'model.bbox_head.additions.{index}: {reason}'
    yield from _part_obstacles(detector, head)
    try:
        with torch.no_grad():
            detector.extract_feat(next(detector.parameters()).new_zeros(1, 3, *PROBE))
    except RuntimeError as error:
        yield (
            'model.backbone cannot be exported: it takes no images of three channels, '
            f'as the exported file does ({error})'
        )
    if nms:
        yield from _suppression_obstacles(head.test_cfg or {})


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
