"""Stop at the first loss that is no number, and say where it came from."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, Optional

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import nn

from ...utils.errors import UserError
from ..architecture import unwrapped


class NonFiniteLossError(UserError, RuntimeError):
    """Loss or gradients are NaN or infinite; says which tensor, stage and image."""


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Raises :class:`NonFiniteLossError` when the loss is NaN or infinite.

    It costs nothing while all is well: mmengine has brought the loss to the host for
    its log by then, and the head's outputs are only referred to until the
    step is over. The step that failed has spoilt the weights in memory; the
    checkpoints on the disk are from before it.

    A gradient scaler (``--amp``) skips steps whose gradients overflow and lowers the
    loss's scale, for ever if it has to. The hook also raises when that goes on below
    a scale of 1, where the gradients themselves don't fit float16.

    Args:
        patience: Losses in a row that may be not finite. Default: none, or 10
            with a gradient scaler. As many steps in a row may be skipped by a scaler
            below 1.
    """

    def __init__(self, patience: Optional[int] = None) -> None:
        if patience is not None and patience < 0:
            raise ValueError(f'patience must be at least 0, got {patience}')
        self.patience = patience
        self.bad_steps = 0
        self.skipped_steps = 0
        self._scale = math.inf
        self._features: Any = None
        self._outputs: Any = None

    def before_train(self, runner: Runner) -> None:
        """Look over the head's shoulder, and settle the patience."""
        scaler = getattr(runner.optim_wrapper, 'loss_scaler', None)
        if scaler is not None:
            self._scale = scaler.get_scale()
        if self.patience is None:
            self.patience = 0 if scaler is None else 10
        head = getattr(unwrapped(runner.model), 'bbox_head', None)
        if head is not None:
            head.register_forward_hook(self._keep)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Optional[dict] = None,
    ) -> None:
        """Look at the loss that was logged."""
        losses = runner.message_hub.log_scalars
        loss = losses.get('train/loss')
        if loss is None or math.isfinite(loss.current()):
            self.bad_steps = 0
            self._watch_scale(runner, data_batch)
            self._features = self._outputs = None
            return
        self.bad_steps += 1
        if self.bad_steps <= self.patience:
            runner.logger.warning(
                f'the loss is {loss.current()}, {self.bad_steps} times in a row '
                f'(patience: {self.patience})'
            )
            return
        bad = {
            name[6:]: value.current()
            for name, value in losses.items()
            if name.startswith('train/')
            and 'loss' in name
            and not math.isfinite(value.current())
        }
        raise self._error(
            runner,
            data_batch,
            ', '.join(f'{name} is {value}' for name, value in bad.items()),
            'the loss overflowed by itself',
            'gradient clipping (optim_wrapper.clip_grad)',
        )

    def _watch_scale(self, runner: Runner, data_batch: Any) -> None:
        """Raise when a scaler has done all it can and steps are still skipped."""
        optim = runner.optim_wrapper
        if not hasattr(optim, 'loss_scaler') or not optim.should_update():
            return
        # A scaler lowers its scale only when it skips a step.
        before, self._scale = self._scale, optim.loss_scaler.get_scale()
        skipped = self._scale < min(before, 1.0)
        self.skipped_steps = self.skipped_steps + 1 if skipped else 0
        if self.skipped_steps > self.patience:
            raise self._error(
                runner,
                data_batch,
                f'the gradients are not finite, even of {self._scale:g} times the loss '
                f'({self.skipped_steps} steps in a row were skipped)',
                'the gradients overflowed by themselves',
                "bfloat16 (optim_wrapper.dtype='bfloat16')",
            )

    def _error(
        self, runner: Runner, data_batch: Any, what: str, otherwise: str, way_out: str
    ) -> NonFiniteLossError:
        origin = self._origin(unwrapped(runner.model), data_batch, otherwise)
        return NonFiniteLossError(
            f'epoch {runner.epoch + 1}, iteration {runner.iter + 1}: {what}. {origin} '
            f'Likely ways out: a smaller lr, a longer warm-up, {way_out}. The '
            'checkpoints are from before this step: --resume goes on from the last one.'
        )

    def _keep(self, head: nn.Module, inputs: tuple, outputs: Any) -> None:
        if head.training:
            self._features, self._outputs = inputs[0], outputs

    def _origin(self, model: nn.Module, data_batch: Any, otherwise: str) -> str:
        """The first thing in the flow of data that isn't finite."""
        samples = (data_batch or {}).get('data_samples', [])
        paths = [getattr(sample, 'img_path', None) for sample in samples]
        for sample, path in zip(samples, paths):
            boxes = sample.gt_instances.bboxes
            boxes = getattr(boxes, 'tensor', boxes)
            if not bool(torch.isfinite(boxes).all()):
                return f'A ground-truth box of {path} is not finite.'
        for what, tensor in self._tensors(model.bbox_head):
            image = _first_bad_image(tensor)
            if image is not None:
                path = paths[image] if image < len(paths) else None
                return (
                    f'The first tensor that is not finite: {what}, image {image} of '
                    f'the batch ({path}).'
                )
        return (
            f"The image features and the head's outputs are all finite: {otherwise} "
            f'(images: {", ".join(map(str, paths))}).'
        )

    def _tensors(self, head: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
        """Name and value of what the head saw and gave, batch first."""
        for level, tensor in enumerate(_levels(self._features)):
            yield f'the features of level {level}', tensor
        if not isinstance(self._outputs, tuple) or len(self._outputs) < 2:
            return
        scores, deltas = self._outputs[:2]
        for level, tensor in enumerate(_levels(scores)):
            yield f'the classification output of level {level}', tensor
        stages = getattr(head, 'reg_stages', 1)
        for level, tensor in enumerate(_levels(deltas)):
            by_stage = tensor.unflatten(1, (-1, stages, 4))
            for stage in range(stages):
                yield (
                    f'the regression output of stage {stage}, level {level}',
                    by_stage[:, :, stage],
                )


def _levels(value: Any) -> Sequence[torch.Tensor]:
    return [v for v in value if torch.is_tensor(v)] if value is not None else []


def _first_bad_image(tensor: torch.Tensor) -> Optional[int]:
    good = torch.isfinite(tensor.detach()).flatten(1).all(dim=1)
    return None if bool(good.all()) else int((~good).nonzero()[0])
