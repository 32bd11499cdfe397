"""A supervised training of a small detector, and its outcome."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Callable, Optional

import torch

from mmdet_consistent.engine.checkpoint import load
from tools.dev import ROOT

CONFIG = 'configs/quickstart/con_retinanet_bccd.py'
IMAGES, BATCH = 24, 4
# Figures in the log that may differ between two equal trainings.
UNEQUAL = ('time', 'data_time', 'memory')
SETTINGS = [
    'model.backbone.base_channels=8',
    'model.neck.in_channels=[8,16,32,64]',
    'model.neck.out_channels=32',
    'model.bbox_head.in_channels=32',
    'model.bbox_head.feat_channels=32',
    f'train_dataloader.batch_size={BATCH}',
    f'train_dataloader.dataset.indices={IMAGES}',
    'val_dataloader.dataset.indices=4',
    'train_cfg.val_interval=10',
    'default_hooks.logger.interval=1',
    'default_hooks.checkpoint.max_keep_ckpts=3',
]


class Training:
    """One start of ``tools/train.py`` and the lines that it prints.

    Args:
        config: Config file.
        arguments: Further arguments of ``tools/train.py``.
        env: Environment variables beside those of this process.
    """

    def __init__(
        self, config: str, *arguments: str, env: Optional[dict[str, str]] = None
    ) -> None:
        self.lines: list[str] = []
        self.steps = 0
        self.process = subprocess.Popen(
            [sys.executable, '-u', 'tools/train.py', config, *arguments],
            cwd=ROOT,
            env={**os.environ, **(env or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        for line in self.process.stdout:
            self.lines.append(line.rstrip())
            self.steps += 'Epoch(train)' in line

    def wait_for(self, done: Callable[[], bool]) -> None:
        """Wait until ``done()`` or the end of the process."""
        while self.process.poll() is None and not done():
            time.sleep(0.01)

    def finish(self) -> int:
        """Wait for the end, read all output, and return the exit status."""
        status = self.process.wait()
        self.reader.join()
        return status

    def said(self, text: str) -> bool:
        """Return whether any line contains a text."""
        return any(text in line for line in self.lines)

    def resumed_epoch(self) -> Optional[int]:
        """Return the epoch that this start resumed from, if it resumed."""
        for line in self.lines:
            if 'resumed epoch: ' in line:
                return int(line.split('resumed epoch: ')[1].split(',')[0])
        return None

    def memory_mb(self) -> float:
        """Return the resident memory of the process in megabytes (Linux)."""
        for line in Path(f'/proc/{self.process.pid}/status').read_text().splitlines():
            if line.startswith('VmRSS:'):
                return int(line.split()[1]) / 1024
        return 0.0


def start_training(data: Path, work_dir: Path, epochs: int) -> Training:
    """Start or resume the soak's training."""
    options = [*SETTINGS, f'train_cfg.max_epochs={epochs}']
    # The schedule lasts to the end, so that every step changes the weights.
    options += [f'param_scheduler.1.{key}={epochs}' for key in ('end', 'T_max')]
    roots = (f'{part}_dataloader.dataset.data_root' for part in ('train', 'val'))
    options += [f'{root}={data}/' for root in roots]
    arguments = ['--resume', '--bad-data', 'refuse', '--work-dir', str(work_dir)]
    return Training(CONFIG, *arguments, '--cfg-options', *options)


def outcome(folder: Path, epochs: int) -> dict:
    """Return weights, optimizer state and log of a complete training."""
    checkpoint = load(folder / f'epoch_{epochs}.pth', 'cpu')
    log: dict = {}
    for path in sorted(folder.rglob('scalars.json')):
        for line in path.read_text().splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue  # cut off by a kill; its step was repeated
            kind = 'loss' if 'loss' in entry else 'validation'
            values = {k: v for k, v in entry.items() if k not in UNEQUAL}
            if log.setdefault((kind, entry['step']), values) != values:
                log['two values for one step'] = values
    return {
        'weights': checkpoint['state_dict'],
        'optimizer states': checkpoint['optimizer'],
        'logs': log,
    }


def equal(first: object, second: object) -> bool:
    """Return whether two nested values are equal, tensors bit for bit."""
    if torch.is_tensor(first):
        return torch.is_tensor(second) and torch.equal(first, second)
    if isinstance(first, dict):
        return (
            isinstance(second, dict)
            and first.keys() == second.keys()
            and all(equal(value, second[key]) for key, value in first.items())
        )
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(equal, first, second))
    return first == second
