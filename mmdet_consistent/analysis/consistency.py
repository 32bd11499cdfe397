"""Agreement of a detector's scores and boxes on a training batch."""

from typing import Any

import numpy as np
import torch
from mmdet.models.task_modules.assigners import MaxIoUAssigner
from mmdet.structures.bbox import get_box_tensor
from mmengine.structures import InstanceData
from torch import Tensor

from ..task_modules import SecondPassAssigner
from .measures import spearman
from .recorder import AnchorOutputs, Recorder, find_head, nearest


@torch.no_grad()
def measure(model: Any, data_batch: dict[str, Any]) -> dict[str, float]:
    """Run a training batch as at inference, and measure scores against boxes.

    Args:
        model: An anchor-based single-shot detector, not wrapped. Afterwards each of
            its modules is in the mode, training or evaluation, that it was in before.
        data_batch: A batch as the data loader yields it, with ground truth.

    Returns:
        The values that :class:`~mmdet_consistent.ConsistencyHook` logs, by name.
        Undefined ones, such as the correlation of a single box, are left out.
    """
    head = find_head(model)
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        batch = model.data_preprocessor(data_batch, False)
        with Recorder(head) as recorder:
            # Not rescaled: boxes and ground truth are in the input image.
            model.predict(batch['inputs'], batch['data_samples'], rescale=False)
    finally:
        for module, mode in modes.items():
            module.training = mode
    return _values(head, recorder.take(), batch['data_samples'])


def _values(head: Any, outputs: list[AnchorOutputs], samples: list) -> dict[str, float]:
    """Average the counts over the images, and the other values over all anchors."""
    num_stages = len(outputs[0].boxes)
    counts = np.zeros(num_stages)
    agree, scores, ious = [], [], []
    for output, sample in zip(outputs, samples):
        truth = InstanceData(
            bboxes=get_box_tensor(sample.gt_instances.bboxes),
            labels=sample.gt_instances.labels,
        )
        labels = [
            anchor_labels(assigner_of(head, stage), boxes, truth)
            for stage, boxes in enumerate(output.boxes)
        ]
        counts += [float((label >= 0).sum()) for label in labels]
        agree.append(agreement(labels[0], labels[1]))
        iou, _ = nearest(output.boxes[-1], truth.bboxes)
        good = iou >= 0.5
        ious.append(iou[good])
        scores.append(output.scores[good].amax(dim=1))
    values = {}
    for stage in range(num_stages):
        name = 'num_pos' if stage == 0 else f'num_pos_s{stage}'
        values[name] = counts[stage] / len(outputs)
    values['label_agreement'] = float(torch.cat(agree).float().mean())
    values['rank_correlation'] = spearman(
        torch.cat(scores).cpu().numpy(), torch.cat(ious).cpu().numpy()
    )
    return {name: value for name, value in values.items() if not np.isnan(value)}


def assigner_of(head: Any, stage: int) -> Any:
    """Return the assigner that labels the boxes of a stage.

    This is the head's own one where it needs boxes only. Otherwise (the baseline has
    no later stages, ATSS assigns by more than boxes) it has the paper's thresholds:
    0.5/0.4 for the prior anchors, then 0.6/0.5, then 0.7/0.6.
    """
    later = [stage.assigner for stage in getattr(head, 'stages', [])[1:]]
    own = [getattr(head, 'assigner', None), *later]
    kind = SecondPassAssigner if stage else MaxIoUAssigner
    if stage < len(own) and isinstance(own[stage], kind):
        return own[stage]
    thresholds = ((0.5, 0.4), (0.6, 0.5), (0.7, 0.6))
    return SecondPassAssigner(*thresholds[min(stage, 2)])


def anchor_labels(assigner: Any, boxes: Tensor, truth: InstanceData) -> Tensor:
    """Label boxes (A, 4), xyxy in pixels, by an assigner.

    Returns:
        The class of each box, (A,) long; -1 for background, -2 for ignored.
    """
    result = assigner.assign(InstanceData(priors=boxes), truth)
    labels = torch.full_like(result.gt_inds, -1)
    positive = result.gt_inds > 0
    labels[positive] = truth.labels[result.gt_inds[positive] - 1]
    return labels.masked_fill(result.gt_inds < 0, -2)


def agreement(before: Tensor, after: Tensor) -> Tensor:
    """Compare two label sets (A,) on the anchors that are positive in either.

    Returns:
        True where the labels are equal, (P,) bool, without the anchors that either
        label set ignores.
    """
    counted = ((before >= 0) | (after >= 0)) & (before != -2) & (after != -2)
    return before[counted] == after[counted]
