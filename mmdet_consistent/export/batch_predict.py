"""Run mmdet's prediction, written for one image, on a batch with fixed shapes."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FunctionType, MethodType
from typing import Any, NamedTuple, Optional

import torch
import torch.nn.functional as F
from mmdet.models.dense_heads import GFLHead, PAAHead
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor

# mmdet's prediction of one image ends with `_bbox_post_process`, and up to there it is
# traceable if `filter_scores_and_topk` is: everything else has the shape of its inputs.
# These are the versions of it that the export was written for.
BY_SCORE = (
    BaseDenseHead._predict_by_feat_single,
    GFLHead._predict_by_feat_single,
)
BY_ANCHOR = (PAAHead._predict_by_feat_single,)


def selects_anchors(head: Any) -> bool:
    """Return whether the head selects anchors with all their classes, as PAA does."""
    return type(head)._predict_by_feat_single in BY_ANCHOR


class Candidates(NamedTuple):
    """Boxes that a suppression can choose from.

    Attributes:
        boxes: (N, M, 4), xyxy in pixels, not clipped.
        scores: (N, M, C), final; -1 where a box is no candidate for a class.
        clips: Whether the box coder clips boxes to the image.
    """

    boxes: Tensor
    scores: Tensor
    clips: bool


def predict_batch(
    head: Any, features: Sequence[Tensor], outputs: Sequence[Any], best_only: bool
) -> Candidates:
    """Decode and score a batch by the head's own ``predict_by_feat``.

    The images of a batch are put below each other, as if they were one tall image with
    N times as many rows of cells, so that mmdet's code for one image handles them all.
    Three things are replaced during the call: the priors, which repeat for each image,
    the selection of the best, whose number depends on the data, and the suppression.

    Args:
        head: A head whose ``_predict_by_feat_single`` is in `BY_SCORE` or `BY_ANCHOR`.
        features: Levels of (N, F, H, W).
        outputs: What ``head.forward`` returns: lists of levels of (N, D, H, W).
        best_only: Whether only the best ``nms_pre`` of each level are returned, as
            candidates, otherwise all boxes with all scores.
    """
    batch = features[0].shape[0]
    sizes = [level.shape[-2:] for level in features]
    tall = [
        [_stack_images(level, width) for level, (_, width) in zip(kind, sizes)]
        for kind in outputs
    ]
    by_anchor = selects_anchors(head)
    limit = head.test_cfg.nms_pre if best_only else None
    cfg = ConfigDict({'score_thr': 0.0, **(head.test_cfg or {}), 'min_bbox_size': -1})
    if by_anchor:
        cfg.nms_pre = -1
    select = _SelectByScore(batch, limit)
    found: dict = {}

    def post_process(results: InstanceData, cfg: Any, *_: Any, **__: Any) -> Any:
        coder = getattr(head.bbox_coder, 'stages', [head.bbox_coder])[-1]
        found['clips'] = getattr(coder, 'clip_border', True)
        if not by_anchor:  # mmdet's and the additions' way to the final scores
            own = type(head)._bbox_post_process
            results = own(head, results, cfg, rescale=False, with_nms=False)
        found['results'] = results
        return results

    with _replaced(
        head,
        prior_generator=_repeated_priors(head.prior_generator, sizes, batch),
        _predict_by_feat_single=_with_selection(head, select),
        _bbox_post_process=post_process,
    ):
        meta = dict(img_shape=None)  # boxes are clipped later, each image to its size
        head.predict_by_feat(*tall, batch_img_metas=[meta], cfg=cfg, rescale=False)
    results = found['results']
    boxes, scores = results.bboxes, results.scores
    if by_anchor:
        # PAA's: sqrt(score · IoU); the best anchors have the best score of any class.
        scores = (scores * results.score_factors[:, None]).sqrt()
    if limit and not by_anchor:
        scores = scores.masked_fill(torch.cat(select.rejected), -1.0)
        one_class = results.labels[:, None] == torch.arange(head.num_classes)
        scores = scores[:, None].masked_fill(~one_class, -1.0)
        counts = [limit] * len(sizes)
    else:
        anchors = head.prior_generator.num_base_priors
        counts = [a * h * w for a, (h, w) in zip(anchors, sizes)]
    levels = list(_by_image(batch, counts, boxes, scores))
    if limit and by_anchor:
        levels = [_best_anchors(*level, limit, cfg.score_thr) for level in levels]
    boxes, scores = (torch.cat(part, dim=1) for part in zip(*levels))
    return Candidates(boxes, scores, found['clips'])


def _stack_images(x: Tensor, width: int) -> Tensor:
    """Put the images of (N, D, H, W) below each other: (1, D, N·H, W)."""
    # The copy is free: mmdet's code makes the channels the last axis again. The
    # width comes from the features, since tracing takes it for a constant where a head
    # has reshaped its outputs.
    rows = x.permute(0, 2, 3, 1).reshape(1, -1, width, x.shape[1])
    return rows.permute(0, 3, 1, 2)


def _by_image(
    batch: int, counts: list, boxes: Tensor, scores: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield boxes and scores of each level, (N, count, …), from (Σ N·count, …)."""
    start: Any = 0
    for count in counts:
        end = start + batch * count
        yield tuple(  # type: ignore[misc]
            x[start:end].reshape(batch, -1, x.shape[-1]) for x in (boxes, scores)
        )
        start = end


def _best_anchors(
    boxes: Tensor, scores: Tensor, limit: int, score_thr: float
) -> tuple[Tensor, Tensor]:
    """Return the ``limit`` boxes (N, limit, 4) whose best score is the highest."""
    padded = F.pad(scores.max(dim=2)[0], (0, limit), value=-1.0)
    best, index = padded.topk(limit, dim=1)
    index = index.masked_fill(best < 0, 0)[..., None]
    boxes = boxes.gather(1, index.repeat(1, 1, 4))
    scores = scores.gather(1, index.repeat(1, 1, scores.shape[2]))
    rejected = (scores <= score_thr) | (best < 0)[..., None]
    return boxes, scores.masked_fill(rejected, -1.0)


class _SelectByScore:
    """mmdet's ``filter_scores_and_topk`` for a batch, with a fixed number of rows.

    Args:
        batch: N.
        limit: Rows of each image to select; ``None``: all, with the scores of all
            classes.

    Attributes:
        rejected: For each call, which of the selected rows are no candidates, (N·K,).
    """

    def __init__(self, batch: int, limit: Optional[int]) -> None:
        self.batch, self.limit = batch, limit
        self.rejected: list[Tensor] = []

    def __call__(
        self, scores: Tensor, score_thr: float, topk: int, results: dict
    ) -> tuple[Tensor, Tensor, Tensor, dict]:
        """Select rows. Takes and returns what mmdet's function does."""
        rows, classes = scores.shape
        if self.limit is None:
            # (A column of indices makes mmdet multiply all classes by a score factor.)
            index = torch.arange(rows)
            return scores, torch.zeros_like(index), index[:, None], results
        flat = scores.reshape(self.batch, -1)
        # Padding with rows that are no candidates lets top-k take a fixed number.
        best, index = F.pad(flat, (0, self.limit), value=-1.0).topk(self.limit, dim=1)
        self.rejected.append((best <= score_thr).flatten())
        index = index.masked_fill(best < 0, 0)
        first = torch.arange(self.batch)[:, None] * (flat.shape[1] // classes)
        keep = (first + index // classes).flatten()
        found = {name: value[keep] for name, value in results.items()}
        return best.clamp(min=0).flatten(), (index % classes).flatten(), keep, found


def _with_selection(head: Any, select: _SelectByScore) -> MethodType:
    """Return the head's ``_predict_by_feat_single`` with another selection."""
    own = type(head)._predict_by_feat_single
    scope = {**own.__globals__, 'filter_scores_and_topk': select}
    function = FunctionType(
        own.__code__, scope, own.__name__, own.__defaults__, own.__closure__
    )
    return MethodType(function, head)


def _repeated_priors(generator: Any, sizes: list, batch: int) -> Any:
    """Return a prior generator whose levels are those of N images below each other."""
    repeated = copy.copy(generator)

    def single_level_grid_priors(_: Any, level_idx: int, **options: Any) -> Tensor:
        priors = generator.single_level_grid_priors(
            sizes[level_idx], level_idx, **options
        )
        return priors.repeat(batch, 1)  # (expand() would fix the batch size)

    repeated.single_level_grid_priors = single_level_grid_priors
    return repeated


@contextmanager
def _replaced(owner: Any, **attributes: Any) -> Iterator[None]:
    """Replace attributes of an instance for the time of a call."""
    before = {k: vars(owner)[k] for k in attributes if k in vars(owner)}
    vars(owner).update(attributes)
    try:
        yield
    finally:
        for name in attributes:
            vars(owner).pop(name)
        vars(owner).update(before)
