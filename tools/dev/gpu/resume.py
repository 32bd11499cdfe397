"""Kill a training, resume it, and compare it with an uninterrupted one."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tools.dev.soak.training import SETTINGS, Training, equal, outcome

from .rows import Row, judged

CONFIG = 'configs/quickstart/con_retinanet_bccd.py'
# Where kernels add in any order, losses differ between two uninterrupted trainings.
# Those of a resumed one may differ this many times as much, or by float16's rounding.
SLACK, ROUNDING = 3, 1e-3


class Plan(NamedTuple):
    """Sizes of the trainings: real ones, or tiny ones for a dry run.

    Attributes:
        precision: ``'mixed precision'``, or ``'float32'`` where there is no GPU.
        epochs: Number of epochs; the training is killed in the middle of them.
        steps: Number of steps per epoch.
        arguments: Arguments of ``tools/train.py`` before ``--cfg-options``.
        options: Its config options.
        env: Environment variables.
    """

    precision: str
    epochs: int
    steps: int
    arguments: tuple[str, ...]
    options: tuple[str, ...]
    env: dict[str, str]

    def start(self, folder: Path, deterministic: bool, *arguments: str) -> Training:
        """Start a training."""
        options = [
            *self.options,
            f'randomness.deterministic={deterministic}',
            'default_hooks.logger.interval=1',
            f'train_cfg.max_epochs={self.epochs}',
            f'train_cfg.val_interval={self.epochs}',
            'val_dataloader.dataset.indices=4',
            *(f'param_scheduler.1.{key}={self.epochs}' for key in ('end', 'T_max')),
        ]
        return Training(
            CONFIG,
            *(*self.arguments, *arguments, '--work-dir', str(folder)),
            *('--cfg-options', *options),
            env=self.env,
        )


REAL = Plan(
    precision='mixed precision',
    epochs=4,
    steps=25,
    arguments=('--amp',),
    options=(
        'train_dataloader.batch_size=8',
        'train_dataloader.dataset.indices=200',
        'train_dataloader.dataset.pipeline.2.scale=(640,480)',
    ),
    # Without it, cuBLAS refuses to be deterministic.
    env=dict(CUBLAS_WORKSPACE_CONFIG=':4096:8'),
)
DRY = Plan(
    precision='float32 (dry)',
    epochs=2,
    steps=4,
    arguments=(),
    options=(
        *SETTINGS,
        'train_dataloader.dataset.indices=16',
        'train_dataloader.dataset.pipeline.2.scale=(128,96)',
    ),
    env=dict(CUDA_VISIBLE_DEVICES='', OMP_NUM_THREADS='1'),
)


def logged(folder: Path) -> dict[int, dict[str, float]]:
    """Return losses and gradient norms by step, of the last start of a training."""
    last = max(folder.rglob('scalars.json'))  # folders are named by date and time
    entries = map(json.loads, last.read_text('utf-8').splitlines())
    return {
        entry['step']: {
            name: value
            for name, value in entry.items()
            if 'loss' in name or name == 'grad_norm'
        }
        for entry in entries
        if 'loss' in entry  # else it is a validation's
    }


def largest_difference(one: dict, other: dict, steps: list[int]) -> float:
    """Return the largest relative difference of the total loss over some steps."""
    pairs = [(one[step]['loss'], other[step]['loss']) for step in steps]
    return max(abs(a - b) / abs(b) for a, b in pairs)


def finish(training: Training, name: str) -> None:
    """Wait for the end of a training.

    Raises:
        RuntimeError: If the training failed. The message holds its last line.
    """
    if training.finish() != 0:
        last = training.lines[-1] if training.lines else 'it printed nothing'
        raise RuntimeError(f'the {name} training failed: {last}')


def train_all(plan: Plan, deterministic: bool, folder: Path) -> int:
    """Train without an interruption (twice if not deterministic), and with a kill.

    Args:
        plan: Sizes.
        deterministic: Whether PyTorch must be deterministic.
        folder: Gets the folders ``whole``, ``again`` and ``killed``.

    Returns:
        The epoch after which the killed training resumed.

    Raises:
        RuntimeError: If a training failed, or ended before it was killed, or the
            killed one did not resume from its last whole epoch.
    """
    shutil.rmtree(folder, ignore_errors=True)
    names = ['killed', 'whole'] + ['again'] * (not deterministic)
    running = {name: plan.start(folder / name, deterministic) for name in names}
    half = plan.epochs // 2
    try:
        killed = running['killed']
        kill_at = half * plan.steps + plan.steps // 2
        killed.wait_for(lambda: killed.steps >= kill_at)
        if killed.process.poll() is not None:
            finish(killed, 'first')
            raise RuntimeError('the training ended before it could be killed')
        killed.process.kill()
        killed.finish()
        running['killed'] = plan.start(folder / 'killed', deterministic, '--resume')
        for name, training in running.items():
            finish(training, name)
    finally:
        for training in running.values():
            training.process.kill()
    epoch = running['killed'].resumed_epoch()
    if epoch != half:
        raise RuntimeError(f'resumed after epoch {epoch}, not after epoch {half}')
    return epoch


def check_resume(plan: Plan, deterministic: bool, folder: Path) -> Iterator[Row]:
    """Compare a resumed training with an uninterrupted one."""
    epoch = train_all(plan, deterministic, folder)
    whole, resumed = logged(folder / 'whole'), logged(folder / 'killed')
    steps = sorted(resumed)
    if steps != list(range(epoch * plan.steps + 1, plan.epochs * plan.steps + 1)):
        raise RuntimeError(f'the resumed training logged the steps {steps}')
    difference = largest_difference(resumed, whole, steps)
    name = f'killed in epoch {epoch + 1} and resumed, {len(steps)} steps'
    if deterministic:
        setting = f'{plan.precision}, deterministic'
        pair = [outcome(folder / x, plan.epochs) for x in ('whole', 'killed')]
        wrong = [key for key in pair[0] if not equal(pair[0][key], pair[1][key])]
        value = f'{", ".join(pair[0])}: equal bit for bit'
        if wrong or difference:
            value = f'{", ".join(wrong)} differ, losses by up to {difference:.1e}'
        yield Row(name, setting, value, 'no' if wrong or difference else 'yes')
    else:
        setting = f'{plan.precision}, losses'
        again = largest_difference(logged(folder / 'again'), whole, steps)
        yield Row('two uninterrupted trainings', setting, f'{again:.1e}', '')
        yield judged(name, setting, difference, max(SLACK * again, ROUNDING))
