"""A supervised training of a small detector, for ``tools/dev/soak``."""

import json
import math
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Callable, Optional

import torch

from mmdet_consistent.engine.checkpoint import load

ROOT = Path(__file__).resolve().parents[3]
CONFIG = 'configs/quickstart/con_retinanet_bccd.py'
IMAGES, BATCH = 24, 4
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
    """One start of ``tools/train.py``, and what it says."""

    def __init__(self, data: Path, work_dir: Path, epochs: int) -> None:
        command = [sys.executable, '-u', 'tools/train.py', CONFIG, '--resume']
        command += ['--bad-data', 'refuse', '--work-dir', str(work_dir)]
        command += ['--cfg-options', *SETTINGS, f'train_cfg.max_epochs={epochs}']
        # The schedule's last part goes on to the end, so that no step is idle.
        command += [f'param_scheduler.1.{key}={epochs}' for key in ('end', 'T_max')]
        roots = (f'{part}_dataloader.dataset.data_root' for part in ('train', 'val'))
        command += [f'{root}={data}/' for root in roots]
        self.lines: list[str] = []
        self.steps = 0
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
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

    def wait_for(self, done: Callable[[], bool], limit: float = math.inf) -> bool:
        """Wait until ``done()``, the end of the process, or ``limit`` seconds."""
        end = time.monotonic() + limit
        while time.monotonic() < end and self.process.poll() is None:
            if done():
                return True
            time.sleep(0.01)
        return done()

    def finish(self) -> int:
        """The exit status, when all that it said has been read."""
        status = self.process.wait()
        self.reader.join()
        return status

    def said(self, text: str) -> bool:
        """Whether any line holds this text."""
        return any(text in line for line in self.lines)

    def resumed_epoch(self) -> Optional[int]:
        """The epoch that this start went on from, if it resumed."""
        for line in self.lines:
            if 'resumed epoch: ' in line:
                return int(line.split('resumed epoch: ')[1].split(',')[0])
        return None

    def memory_mb(self) -> float:
        """Resident memory of the process in megabytes (Linux)."""
        for line in Path(f'/proc/{self.process.pid}/status').read_text().splitlines():
            if line.startswith('VmRSS:'):
                return int(line.split()[1]) / 1024
        return 0.0


def outcome(folder: Path, epochs: int) -> dict:
    """Weights, optimizer state and log of a finished training."""
    checkpoint = load(folder / f'epoch_{epochs}.pth', 'cpu')
    log: dict = {}
    for path in sorted(folder.rglob('scalars.json')):
        for line in path.read_text().splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue  # a kill cut this line off; its step was taken again
            kind = 'loss' if 'loss' in entry else 'validation'
            values = {k: v for k, v in entry.items() if k not in ('time', 'data_time')}
            if log.setdefault((kind, entry['step']), values) != values:
                log['two values for one step'] = values
    return {
        'weights': checkpoint['state_dict'],
        'optimizer states': checkpoint['optimizer'],
        'logs': log,
    }


def equal(first: object, second: object) -> bool:
    """Equality down to the last bit of the last tensor."""
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
