"""Logs how well scores and boxes agree during training."""

from typing import Any, Optional

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ..architecture import unwrapped


@HOOKS.register_module()
class ConsistencyHook(Hook):
    """Logs the agreement of scores and boxes to mmengine's visualizer.

    Every ``interval`` iterations a few images of the training batch are run once
    more, as at inference and without gradients. Training itself, its random numbers
    and its batch-norm statistics are not affected. Any anchor-based single-shot head
    works, the baseline's included. The hook logs

    * ``num_pos``, ``num_pos_s1``, …: number of positive anchors per image before and
      after each regression;
    * ``label_agreement``: among the anchors that are positive before or after the
      first regression, and ignored neither time, the share whose label is the same;
    * ``rank_correlation``: Spearman's correlation of score and IoU with the nearest
      ground truth, among the boxes with an IoU of at least 0.5.

    In a config, with TensorBoard beside the usual files::

        custom_hooks = [dict(type='ConsistencyHook', interval=200)]
        visualizer = dict(vis_backends=[
            dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')])

    Args:
        interval: Number of iterations between two measurements.
        num_images: Number of images of the batch to run.
        prefix: Prefix of the logged names.

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
        """Refuse a model without anchors before training starts."""
        # Imported where it is used: a program without this hook needs no analysis.
        from ...analysis.recorder import find_head

        find_head(unwrapped(runner.model))

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Optional[dict[str, Any]] = None,
        outputs: Optional[dict] = None,
    ) -> None:
        """Measure the first images of the batch and log the result."""
        if not self.every_n_train_iters(runner, self.interval) or not is_main_process():
            return
        from ...analysis.consistency import measure

        images = {key: v[: self.num_images] for key, v in (data_batch or {}).items()}
        values = measure(unwrapped(runner.model), images)
        runner.visualizer.add_scalars(
            {f'{self.prefix}/{name}': value for name, value in values.items()},
            step=runner.iter + 1,
        )
