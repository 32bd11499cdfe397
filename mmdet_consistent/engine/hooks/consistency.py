"""Score and place of a detector while it trains."""

from typing import Any, Optional

import numpy as np
import torch
from mmdet.models.task_modules.assigners import MaxIoUAssigner
from mmdet.structures.bbox import get_box_tensor
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from mmengine.structures import InstanceData
from torch import Tensor, nn

from ...analysis.measures import spearman
from ...analysis.recorder import AnchorOutputs, Recorder, find_head, nearest
from ...task_modules import SecondPassAssigner


@HOOKS.register_module()
class ConsistencyHook(Hook):
    """Logs how well scores and places agree, to mmengine's visualizer.

    Every ``interval`` iterations some images of the training batch are run once
    more, as at inference and without gradients; training itself, its random
    numbers and its batch-norm statistics are left alone. Works with any
    anchor-based single-shot head, the baseline's too. Logged are

    * ``num_pos``, ``num_pos_s1``, …: anchors an image that are positive before
      and after each regression;
    * ``label_agreement``: of the anchors that are positive before or after the
      first regression (ignored neither time), the share with the same label;
    * ``rank_correlation``: Spearman's, of score and IoU with the nearest ground
      truth, among the boxes at an IoU of 0.5 or more.

    In a config, with TensorBoard beside the usual files::

        custom_hooks = [dict(type='ConsistencyHook', interval=200)]
        visualizer = dict(vis_backends=[
            dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')])

    Args:
        interval: Iterations between two looks.
        num_images: Images of the batch to look at.
        prefix: Put before the names.

    Raises:
        ValueError: If ``interval`` or ``num_images`` is below 1.
    """

    priority = 'LOW'

    def __init__(
        self, interval: int = 100, num_images: int = 2, prefix: str = 'consistency'
    ) -> None:
        for name, value in (('interval', interval), ('num_images', num_images)):
            if value < 1:
                raise ValueError(
                    f'ConsistencyHook: {name} must be at least 1, got {value}'
                )
        self.interval = interval
        self.num_images = num_images
        self.prefix = prefix

    def before_train(self, runner: Runner) -> None:
        """Refuse a model without anchors at once."""
        find_head(_unwrapped(runner.model))

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Optional[dict] = None,
        outputs: Optional[dict] = None,
    ) -> None:
        """Look at some images, and log."""
        if not self.every_n_train_iters(runner, self.interval) or not is_main_process():
            return
        values = self.measure(_unwrapped(runner.model), data_batch)
        runner.visualizer.add_scalars(
            {f'{self.prefix}/{name}': value for name, value in values.items()},
            step=runner.iter + 1,
        )

    @torch.no_grad()
    def measure(self, model: nn.Module, data_batch: dict) -> dict[str, float]:
        """The values of a training batch; what there is no data for is left out."""
        head = find_head(model)
        batch = {key: value[: self.num_images] for key, value in data_batch.items()}
        was_training = model.training
        model.eval()
        try:
            batch = model.data_preprocessor(batch, False)
            with Recorder(head) as recorder:
                # Not rescaled: boxes and ground truth are in the input image.
                model.predict(batch['inputs'], batch['data_samples'], rescale=False)
        finally:
            model.train(was_training)
        return _values(head, recorder.take(), batch['data_samples'])


def _unwrapped(model: nn.Module) -> nn.Module:
    return model.module if is_model_wrapper(model) else model


def _values(
    head: nn.Module, outputs: list[AnchorOutputs], samples: list
) -> dict[str, float]:
    """Mean of the counts over the images; the others over all their anchors."""
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


def assigner_of(head: nn.Module, stage: int) -> Any:
    """Who labels the boxes of a stage: the head's own assigner, or the paper's.

    A head without later assigners, as the baseline's, is measured by the
    thresholds of the paper: 0.6/0.5, then 0.7/0.6. One whose own assigner needs
    more than boxes (ATSS) by 0.5/0.4.
    """
    if stage == 0:
        own = getattr(head, 'assigner', None)
        if isinstance(own, MaxIoUAssigner):
            return own
        return SecondPassAssigner(pos_iou_thr=0.5, neg_iou_thr=0.4)
    stages = getattr(head, 'stages', [])
    if stage < len(stages) and isinstance(stages[stage].assigner, SecondPassAssigner):
        return stages[stage].assigner
    if stage == 1:
        return SecondPassAssigner(pos_iou_thr=0.6, neg_iou_thr=0.5)
    return SecondPassAssigner(pos_iou_thr=0.7, neg_iou_thr=0.6)


def anchor_labels(assigner: Any, boxes: Tensor, truth: InstanceData) -> Tensor:
    """Class of each box (A,): -1 background, -2 ignored."""
    result = assigner.assign(InstanceData(priors=boxes), truth)
    labels = torch.full_like(result.gt_inds, -1)
    positive = result.gt_inds > 0
    labels[positive] = truth.labels[result.gt_inds[positive] - 1]
    return labels.masked_fill(result.gt_inds < 0, -2)


def agreement(before: Tensor, after: Tensor) -> Tensor:
    """Whether the labels agree, for each anchor that is positive in either set.

    Anchors that one of the sets ignores are left out.
    """
    counted = ((before >= 0) | (after >= 0)) & (before != -2) & (after != -2)
    return before[counted] == after[counted]
