"""A detector as one module: pixels in, boxes and scores out."""

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
        _refuse(detector, nms)
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
        """Normalise and pad as the detector does; return (N, 3, H', W')."""
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


def _refuse(detector: SingleStageDetector, nms: bool) -> None:
    """Raise a ConfigError for what can't be exported."""
    head: Any = getattr(detector, 'bbox_head', None)
    if not isinstance(head, (RetinaHead, SSDHead)):
        part = f'model.bbox_head.type={type(head).__name__!r}'
        if head is None:
            part = f'model.type={type(detector).__name__!r} has no bbox_head and'
        raise ConfigError(
            f"{part} cannot be exported: only mmdet's RetinaHead and SSDHead and heads "
            'derived from them can'
        )
    owners: list[tuple[Any, str]] = [(head, method) for method in PREDICTS]
    for owner, method in [*owners, (detector, 'predict')]:
        kind = type(owner)
        if getattr(kind, method).__module__.partition('.')[0] not in OURS:
            raise ConfigError(
                f'{kind.__name__} cannot be exported: it has its own {method}(), which '
                'the exported file would not do'
            )
    for index, addition in enumerate(getattr(head, 'additions', ())):
        reason = addition.not_exported()
        if reason:
            raise ConfigError(f'model.bbox_head.additions.{index}: {reason}')
    _refuse_decoding(head)
    _refuse_images(detector)
    if nms:
        _refuse_suppression(head.test_cfg or {})


def _refuse_decoding(head: Any) -> None:
    """Raise a ConfigError for boxes or scores that are decoded in an unknown way."""
    for coder in getattr(head.bbox_coder, 'stages', [head.bbox_coder]):
        if not isinstance(coder, (DeltaXYWHBBoxCoder, TBLRBBoxCoder)):
            raise ConfigError(
                f'model.bbox_head.bbox_coder.type={type(coder).__name__!r} cannot be '
                'exported: only DeltaXYWHBBoxCoder and TBLRBBoxCoder can'
            )
    if getattr(head.loss_cls, 'custom_cls_channels', False):
        raise ConfigError(
            f'model.bbox_head.loss_cls.type={type(head.loss_cls).__name__!r} cannot be '
            'exported: its scores are neither a sigmoid nor a softmax'
        )


def _refuse_images(detector: SingleStageDetector) -> None:
    """Raise a ConfigError for a detector of anything but images of three channels."""
    preprocessor: Any = detector.data_preprocessor
    plain = (DetDataPreprocessor.forward, ImgDataPreprocessor.forward)
    if type(preprocessor).forward not in plain:
        raise ConfigError(
            f'model.data_preprocessor.type={type(preprocessor).__name__!r} cannot be '
            "exported: only mmdet's DetDataPreprocessor can"
        )
    device = next(detector.parameters()).device
    try:
        with torch.no_grad():
            detector.extract_feat(torch.zeros(1, 3, *PROBE, device=device))
    except RuntimeError as error:
        raise ConfigError(
            'model.backbone cannot be exported: it takes no images of three channels, '
            f'as the exported file does ({error})'
        ) from error


def _refuse_suppression(cfg: dict) -> None:
    """Raise a ConfigError for a test_cfg that the exported suppression can't follow."""
    nms = cfg.get('nms') or {}
    # What mmcv takes for the fields that the exported file doesn't have.
    plain = dict(type='nms', class_agnostic=False, offset=0)
    rules: list[tuple[str, Any, str, Any]] = [
        (f'nms.{field}', value, repr(plain.get(field)), value == plain.get(field))
        for field, value in nms.items()
        if field not in ('iou_threshold', 'max_num', 'score_threshold', 'split_thr')
    ]
    for field, default, rule, holds in (
        ('nms.iou_threshold', None, 'a number', lambda x: x is not None),
        ('nms.max_num', -1, '-1', lambda x: x <= 0),
        ('nms.score_threshold', 0, '0', lambda x: x <= 0),
        ('max_per_img', -1, 'above 0', lambda x: x > 0),
        ('nms_pre', -1, 'above 0', lambda x: x > 0),
        ('min_bbox_size', -1, '0 or -1', lambda x: x <= 0),
        ('score_thr', 0, 'at least 0', lambda x: x >= 0),
    ):
        source = nms if field.startswith('nms.') else cfg
        value = source.get(field.rpartition('.')[2], default)
        rules.append((field, value, rule, holds(value)))
    for field, value, rule, right in rules:
        if not right:
            raise ConfigError(
                f'model.test_cfg.{field} must be {rule} for an export with '
                f'suppression, got {value!r}; change it with --cfg-options, or export '
                'without suppression: --no-nms'
            )
