"""One line of progress for people who watch a short training."""

import statistics
import sys
import time
from typing import Any, Optional, TextIO

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner


@HOOKS.register_module()
class ProgressHook(Hook):
    """Shows name, epoch, per cent, loss and time left; keeps what a table needs.

    On a terminal the line is rewritten in place, else a new one comes every
    ``interval`` seconds.

    Args:
        name: What is being trained.
        runs_left: Trainings of the same length still to come after this one;
            they count in the time left.
        interval: Seconds between two lines.
        stream: Where to write; default: standard output.

    Attributes:
        step_seconds: Duration of each training step.
        num_pos: Positives of each stage, a list a step, by log name.
    """

    def __init__(
        self,
        name: str,
        runs_left: int = 0,
        interval: float = 10,
        stream: Optional[TextIO] = None,
    ) -> None:
        self.name = name
        self.runs_left = runs_left
        self.interval = interval
        self.stream = stream or sys.stdout
        self.step_seconds: list[float] = []
        self.num_pos: dict[str, list[float]] = {}
        self._last_line = 0.0
        self._step_start = 0.0

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None
    ) -> None:
        """Start the step's clock."""
        self._step_start = time.perf_counter()

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Optional[dict] = None,
    ) -> None:
        """Record the step, and say where the run is."""
        now = time.perf_counter()
        self.step_seconds.append(now - self._step_start)
        outputs = outputs or {}
        for key, value in self._positives(runner, outputs).items():
            self.num_pos.setdefault(key, []).append(value)
        done, total = runner.iter + 1, runner.max_iters
        wait = 0.5 if self.stream.isatty() else self.interval
        if now - self._last_line < wait and done < total:
            return
        self._last_line = now
        step = statistics.median(self.step_seconds[-50:])
        left = step * (total - done + self.runs_left * total)
        loss = float(torch.as_tensor(outputs.get('loss', float('nan'))).detach())
        line = (
            f'{self.name}: epoch {runner.epoch + 1}/{runner.max_epochs}, '
            f'{100 * done // total} %, loss {loss:.3f}, '
            f'about {left // 60:.0f} min {left % 60:02.0f} s left'
        )
        if self.stream.isatty():
            end = '\n' if done == total else ''
            print(f'\r{line:<78}', end=end, file=self.stream, flush=True)
        else:
            print(line, file=self.stream, flush=True)

    @staticmethod
    def _positives(runner: Runner, outputs: dict) -> dict[str, float]:
        """Positives of each stage; of mmdet's own heads, from its last sampling."""
        logged = {k: float(v) for k, v in outputs.items() if k.startswith('num_pos')}
        head = getattr(runner.model, 'bbox_head', None)
        sampled = getattr(head, '_raw_positive_infos', {}).get('sampling_results')
        if logged or not sampled:
            return logged
        return {'num_pos': float(sum(len(result.pos_inds) for result in sampled))}
