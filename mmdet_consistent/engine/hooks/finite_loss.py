"""Stops training at the first loss that is NaN or infinite, and explains it."""

from collections.abc import Iterator
from math import inf, isfinite
from typing import Any, Optional

import torch
from mmdet.structures.bbox import get_box_tensor
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor, nn

from ...utils.errors import UserError
from ..architecture import trained_detector, unwrapped
from ..checkpoint import not_finite
from .finite_weights import FiniteWeightsMixin


class NonFiniteLossError(UserError, RuntimeError):
    """Loss or gradients are NaN or infinite. The message names tensor and image."""


@HOOKS.register_module()
class FiniteLossHook(FiniteWeightsMixin):
    """Raises :class:`NonFiniteLossError` when the loss is NaN or infinite.

    While the loss is finite this costs nothing: mmengine has already copied the loss
    to the host for its log, and the head's outputs are only referenced until the step
    is over. The step that failed has spoilt the weights in memory; the checkpoints on
    disk are from before it. A gradient that is not finite under a finite loss is
    noticed where its norm is logged (``optim_wrapper.clip_grad``), and when a
    checkpoint is to be saved.

    A gradient scaler (``--amp``) skips steps whose gradients overflow and lowers the
    loss scale, without end if need be. The hook also raises when steps are still
    skipped below a scale of 1, where the gradients themselves don't fit float16.

    Args:
        patience: Number of consecutive losses that may be non-finite, and of
            consecutive steps that a scaler below 1 may skip. Default: 0, or 10 with a
            gradient scaler.

    Raises:
        ValueError: If ``patience`` is negative.
    """

    def __init__(self, patience: Optional[int] = None) -> None:
        if patience is not None and patience < 0:
            raise ValueError(f'patience must be at least 0, got {patience}')
        self.patience: Any = patience
        self.bad_steps = self.skipped_steps = 0
        self._scale = inf
        self._head: Any = None
        # Inputs and outputs of the head in this step: several in semi-supervision.
        self._passes: list[tuple[Any, Any]] = []

    def before_train(self, runner: Runner) -> None:
        """Watch the outputs of the detector's dense head. Set the default patience."""
        scaler = getattr(runner.optim_wrapper, 'loss_scaler', None)
        if scaler is not None:
            self._scale = scaler.get_scale()
        if self.patience is None:
            self.patience = 0 if scaler is None else 10
        model = trained_detector(runner.model)
        # Of a single-stage detector, or the RPN of a two-stage one.
        self._head = getattr(model, 'bbox_head', getattr(model, 'rpn_head', None))
        if self._head is not None:
            self._head.register_forward_hook(self._keep)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Optional[dict] = None,
    ) -> None:
        """Check the loss that was logged."""
        losses = {
            name.removeprefix('train/'): log.current()
            for name, log in runner.message_hub.log_scalars.items()
            if name.startswith('train/') and 'loss' in name
        }
        if isfinite(losses.get('loss', 0)):
            self.bad_steps = 0
            self._watch_scale(runner, data_batch)
            self._watch_gradients(runner, data_batch)
            self._passes.clear()
            return
        self.bad_steps += 1
        if self.bad_steps <= self.patience:
            runner.logger.warning(
                f'the loss is {losses["loss"]}, {self.bad_steps} times in a row '
                f'(patience: {self.patience})'
            )
            self._passes.clear()
            return
        bad = [f'{n} is {value}' for n, value in losses.items() if not isfinite(value)]
        raise self._error(
            runner,
            data_batch,
            ', '.join(bad),
            'the loss overflowed by itself',
            'gradient clipping (optim_wrapper.clip_grad)',
        )

    def _watch_scale(self, runner: Runner, data_batch: Any) -> None:
        """Raise if steps are still skipped at a loss scale below 1."""
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

    def _watch_gradients(self, runner: Runner, data_batch: Any) -> None:
        """Raise if a gradient that was not finite has reached the weights."""
        norm = runner.message_hub.log_scalars.get('train/grad_norm')
        if norm is None or isfinite(norm.current()):
            return
        weights = dict(unwrapped(runner.model).named_parameters())
        bad = next((n for n in not_finite(weights) if n not in self.constants), None)
        if bad is not None:  # a scaler would have skipped the step
            raise self._error(
                runner,
                data_batch,
                f'grad_norm is {norm.current()}: {bad} now holds NaN or inf',
                'the gradients overflowed by themselves',
                'torch.autograd.set_detect_anomaly(True) to find the operation',
            )

    def _error(
        self, runner: Runner, data_batch: Any, what: str, otherwise: str, remedy: str
    ) -> NonFiniteLossError:
        try:
            origin = self._origin(data_batch, otherwise)
        except Exception as error:  # (of models and batches unlike mmdet's detectors)
            origin = f'Where it comes from could not be determined ({error!r}).'
        return NonFiniteLossError(
            f'epoch {runner.epoch + 1}, iteration {runner.iter + 1}: {what}. {origin} '
            f'Possible remedies: a smaller lr, a longer warm-up, {remedy}. No '
            'checkpoint holds these weights: --resume goes on from the last one, if '
            'there is one.'
        )

    def _keep(self, head: nn.Module, inputs: tuple, outputs: Any) -> None:
        if head.training:
            self._passes.append((inputs[0] if inputs else None, outputs))

    def _origin(self, data_batch: Any, otherwise: str) -> str:
        """Name the first tensor in the flow of data that isn't finite."""
        samples = (data_batch or {}).get('data_samples', [])
        branches = samples.values() if isinstance(samples, dict) else [samples]
        loaded = [x for branch in branches for x in branch if x is not None]
        paths = [getattr(sample, 'img_path', None) for sample in loaded]
        for sample, path in zip(loaded, paths):
            boxes = getattr(getattr(sample, 'gt_instances', None), 'bboxes', None)
            if boxes is not None and not get_box_tensor(boxes).isfinite().all():
                return f'A ground-truth box of {path} is not finite.'
        images = f'(images: {", ".join(map(str, paths))})'
        if not self._passes:
            return f'No outputs of a dense head were recorded {images}.'
        for number, (features, outputs) in enumerate(self._passes, start=1):
            for what, tensor in self._tensors(features, outputs):
                good = tensor.detach().isfinite().flatten(1).all(dim=1)
                if not good.all():
                    image = int((~good).nonzero()[0])
                    path = paths[image] if image < len(paths) else None
                    where = f'the batch ({path})'
                    if len(self._passes) > 1:
                        where = f'forward pass {number} {images}'
                    return (
                        f'The first tensor that is not finite: {what}, image {image} '
                        f'of {where}.'
                    )
        return (
            f'The image features and the outputs of {type(self._head).__name__} are '
            f'all finite: {otherwise} {images}.'
        )

    def _tensors(self, features: Any, outputs: Any) -> Iterator[tuple[str, Tensor]]:
        """Yield name and value of the head's inputs and outputs, (N, …) each."""
        yield from _levels('the features of', features)
        if not isinstance(outputs, tuple) or len(outputs) < 2:
            yield from _levels("the head's output,", outputs)
            return
        scores, boxes, *others = outputs
        if hasattr(self._head, 'split_preds'):
            stages = self._head.split_scores(scores)
            for stage, levels in enumerate(stages):
                of = 'of' if len(stages) == 1 else f'of stage {stage},'
                yield from _levels(f'the classification output {of}', levels)
            for stage, levels in enumerate(self._head.split_preds(boxes)):
                yield from _levels(f'the regression output of stage {stage},', levels)
            # Where all stages are finite, only the additions' values are left.
            names = ' and '.join(type(x).__name__ for x in self._head.additions)
            yield from _levels(f'the values of {names or "no addition"} of', boxes)
        else:
            yield from _levels('the classification output of', scores)
            yield from _levels('the regression output of', boxes)
        for number, output in enumerate(others, start=3):
            yield from _levels(f"the head's output number {number},", output)


def _levels(what: str, levels: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield name and value of each level's tensor."""
    for level, tensor in enumerate(() if levels is None else levels):
        if torch.is_tensor(tensor):
            yield f'{what} level {level}', tensor
