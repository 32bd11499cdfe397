"""Train under one fault after another and check that nothing is lost.

A small detector is trained once undisturbed. The same training is then repeated while
it is killed, its disk fills up, and its checkpoints and images are damaged, at random
steps; after each fault it is resumed. In the end weights, optimizer and log must equal
those of the undisturbed run bit for bit.

Example:
    python -m tools.dev.soak --minutes 60 --write-docs

The full disk needs a file system of its own (Linux, and permission to mount one).
Without it this fault is left out, and the report says so.
"""

import argparse
import json
import random
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Callable, Optional

import torch

from mmdet_consistent.engine.checkpoint import load
from mmdet_consistent.utils import atomic
from tools.dev import ROOT

from .training import BATCH, IMAGES, Training, equal, outcome, start_training

REPORT = ROOT / 'docs' / 'results' / 'reliability.md'


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--minutes', type=float, default=30)
    parser.add_argument('--rounds', type=int, help='stop after this many trainings')
    parser.add_argument('--epochs', type=int, default=100, help='of each training')
    parser.add_argument('--work-dir', default='work_dirs/soak')
    parser.add_argument('--seed', type=int, default=0, help='of the faults')
    parser.add_argument('--disk-mb', type=int, default=64, help='size of the disk')
    parser.add_argument(
        '--write-docs', action='store_true', help=f'write {REPORT.relative_to(ROOT)}'
    )
    return parser.parse_args()


class Soak:
    """Trainings under faults, and everything that went wrong with them."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.total_steps = args.epochs * (IMAGES // BATCH)
        self.random = random.Random(args.seed)
        self.base = Path(args.work_dir).resolve()
        shutil.rmtree(self.base, ignore_errors=True)
        self.disk = self.base / 'disk'
        self.disk.mkdir(parents=True)
        self.folder = self.disk / 'work'
        self.data = self.base / 'data'
        shutil.copytree(ROOT / 'data' / 'bccd', self.data)
        annotation = json.loads((self.data / 'annotations/train.json').read_text())
        self.images = [
            self.data / 'images' / entry['file_name']
            for entry in annotation['images'][:IMAGES]
        ]
        self.mounted = self._mount()
        self.training: Optional[Training] = None
        self.faults: Counter = Counter()
        self.rounds = self.starts = self.epochs_again = 0
        self.wrong: list[str] = []

    def _mount(self) -> bool:
        command = ['mount', '-t', 'tmpfs', '-o', f'size={self.args.disk_mb}m', 'tmpfs']
        try:
            result = subprocess.run([*command, str(self.disk)], capture_output=True)
        except FileNotFoundError:
            return False
        return result.returncode == 0

    def close(self) -> None:
        """Stop the training that still runs, and unmount the disk."""
        if self.training is not None and self.training.process.poll() is None:
            self.training.process.kill()
            self.training.finish()
        if self.mounted:
            subprocess.run(['umount', str(self.disk)], check=True)

    def undisturbed(self) -> None:
        """Train without a fault; remember weights, log and memory."""
        folder = self.base / 'undisturbed'
        self.training = training = start_training(self.data, folder, self.args.epochs)
        self.memory: list[tuple[int, float]] = []
        while training.process.poll() is None:
            if training.steps:
                self.memory.append((training.steps, training.memory_mb()))
            time.sleep(0.5)
        if training.finish() != 0:
            raise SystemExit(
                'soak: the undisturbed training failed:\n' + '\n'.join(training.lines)
            )
        self.memory = [entry for entry in self.memory if entry[1] > 0]
        self.expected = outcome(folder, self.args.epochs)

    def round(self, end: float) -> bool:
        """Train under faults to the end; return False if time runs out first."""
        shutil.rmtree(self.folder, ignore_errors=True)
        saved, complete = 0, False
        while not complete:
            if time.monotonic() > end:
                return False
            name = self.random.choice([*FAULTS] if self.mounted else [*FAULTS][:-1])
            self.training = start_training(self.data, self.folder, self.args.epochs)
            self.starts += 1
            complete = self.expose(name, self.training)
            self._judge_start(self.training, saved)
            saved = max(map(epoch_of, whole_checkpoints(self.folder)), default=0)
        self.rounds += 1
        for field, value in outcome(self.folder, self.args.epochs).items():
            if not equal(value, self.expected[field]):
                self.wrong.append(f'round {self.rounds}: {field} differ')
        return True

    def expose(self, name: str, training: Training) -> bool:
        """Expose a training to a fault; return True if it ended well nevertheless.

        A training may end before the fault reaches it. Only here is it decided which
        of the two happened: files are damaged only if the training will be resumed.
        """
        strike, damage = FAULTS[name]
        high = self.random.choice([0, 40, self.total_steps])
        steps = self.random.randint(min(high, 1), high)
        training.wait_for(lambda: training.steps >= steps)
        if training.process.poll():
            self.wrong.append(f'failed without a fault: {training.lines[-1:]}')
        strike(self, training)
        if training.finish() == 0:
            return True
        self.faults[name] += 1
        if damage is not None:
            damage(self)
        return False

    def _judge_start(self, training: Training, saved: int) -> None:
        """Note a start that resumed from an older checkpoint than it should have."""
        epoch = training.resumed_epoch()
        if epoch is None:
            if saved and training.steps:
                self.wrong.append(f'started anew although epoch {saved} was saved')
            return
        self.epochs_again += max(0, saved - epoch)
        if epoch < saved - 1:
            self.wrong.append(f'resumed at epoch {epoch} although {saved} was saved')

    def expect(self, training: Training, *texts: str) -> None:
        """Note a training that failed without naming the reason."""
        if training.finish() != 0 and not all(map(training.said, texts)):
            self.wrong.append(f'{", ".join(texts)} not named: {training.lines[-1:]}')

    # Faults that strike a running training.

    def _kill(self, training: Training) -> None:
        training.process.kill()

    def _terminate(self, training: Training) -> None:
        training.process.terminate()

    def _kill_while_writing(self, training: Training) -> None:
        training.wait_for(lambda: any(self.folder.glob(f'*{atomic.SUFFIX}')))
        training.process.kill()

    def _spoil_image(self, training: Training) -> None:
        path = self.random.choice(self.images)
        content = path.read_bytes()
        path.write_bytes(b'no image')
        try:
            self.expect(training, path.name, 'corrupt image')
        finally:
            path.write_bytes(content)

    def _fill_disk(self, training: Training) -> None:
        filler = self.disk / 'filler'
        try:
            with open(filler, 'wb') as file:
                while True:
                    file.write(b'0' * 65536)
                    file.flush()
        except OSError:
            pass  # the disk is full
        try:
            self.expect(training, 'No space left on device')
        finally:
            filler.unlink()

    # Damage to the files of a training that was killed.

    def _cut_checkpoint(self) -> None:
        self._damage(lambda content: content[: len(content) // 2])

    def _flip_bit(self) -> None:
        def flip(content: bytes) -> bytes:
            bit = self.random.randrange(8 * len(content))
            changed = bytearray(content)
            changed[bit // 8] ^= 1 << bit % 8
            return bytes(changed)

        self._damage(flip)

    def _damage(self, how: Callable[[bytes], bytes]) -> None:
        """Damage the newest checkpoint if an older one is left.

        No fallback can bear two damaged checkpoints in a row.
        """
        whole = whole_checkpoints(self.folder)
        if len(whole) >= 2:
            whole[-1].write_bytes(how(whole[-1].read_bytes()))

    def _empty_pointer(self) -> None:
        if (self.folder / 'last_checkpoint').is_file():
            (self.folder / 'last_checkpoint').write_text('')

    def report(self, minutes: float) -> str:
        """Render the page in Markdown."""
        steps, rounds = self.total_steps, self.rounds
        spoilt = len({e.split(':')[0] for e in self.wrong if e.startswith('round')})
        lines = [
            '# Reliability, measured',
            '',
            f'Generated by `python -m tools.dev.soak --minutes {self.args.minutes:g} '
            f'--epochs {self.args.epochs} --seed {self.args.seed} --write-docs`.',
            '',
            f'A small consistent RetinaNet on blood cells ({self.args.epochs} epochs '
            f'of {IMAGES // BATCH} steps, augmented, validated every tenth epoch, on '
            'the CPU) was trained once undisturbed. The same training was then exposed '
            'to faults at random steps and resumed after each, for '
            f'{minutes:.0f} minutes: {self.starts} starts, {rounds} whole trainings.',
            '',
            '| fault | times |',
            '| --- | --- |',
            *(f'| {name} | {count} |' for name, count in self.faults.most_common()),
            '',
            '| outcome | |',
            '| --- | --- |',
            '| trainings whose weights, optimizer and log equal those of the '
            f'undisturbed one bit for bit | {rounds - spoilt} of {rounds} |',
            '| epochs repeated because their checkpoint was damaged or not yet '
            f'recorded as the last one | {self.epochs_again} |',
            f'| errors | {len(self.wrong)} |',
            f'| memory of the undisturbed training, steps {0.2 * steps:.0f} to '
            f'{0.4 * steps:.0f} | {self._memory_of(0.2, 0.4)} |',
            f'| the same, steps {0.8 * steps:.0f} to {steps} '
            f'| {self._memory_of(0.8, 1.01)} |',
            '',
        ]
        if not self.mounted:
            lines += ['No file system could be mounted, so no disk was filled.', '']
        lines += [f'- {entry}' for entry in self.wrong]
        lines.append(f'torch {torch.__version__}, Python {sys.version.split()[0]}.')
        return '\n'.join(lines) + '\n'

    def _memory_of(self, low: float, high: float) -> str:
        """Return the undisturbed training's median memory in a part of its steps."""
        part = [mb for step, mb in self.memory if low <= step / self.total_steps < high]
        return f'{statistics.median(part):.0f} MB' if part else 'not measured'


def epoch_of(checkpoint: Path) -> int:
    """Return the epoch in a checkpoint's name."""
    return int(checkpoint.stem.split('_')[1])


def whole_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints of a folder that can be loaded, oldest first."""
    whole = []
    for path in sorted(folder.glob('epoch_*.pth'), key=epoch_of):
        try:
            load(path, 'cpu')
        except RuntimeError:
            continue
        whole.append(path)
    return whole


# Name to what strikes the running training, and what damages its files afterwards.
FAULTS: dict[str, tuple[Callable, Optional[Callable]]] = {
    'SIGKILL': (Soak._kill, None),
    'SIGTERM': (Soak._terminate, None),
    'SIGKILL while a checkpoint is written': (Soak._kill_while_writing, None),
    'newest checkpoint cut in half': (Soak._kill, Soak._cut_checkpoint),
    'a bit of the newest checkpoint flipped': (Soak._kill, Soak._flip_bit),
    'pointer to the newest checkpoint emptied': (Soak._kill, Soak._empty_pointer),
    'an image made unreadable during training': (Soak._spoil_image, None),
    'disk full': (Soak._fill_disk, None),
}


def main() -> None:
    args = parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit('soak: stopped'))
    start = time.monotonic()
    end = start + 60 * args.minutes
    soak = Soak(args)
    try:
        soak.undisturbed()
        print(f'undisturbed: {time.monotonic() - start:.0f} s', flush=True)
        while soak.rounds != args.rounds and soak.round(end):
            text = soak.report((time.monotonic() - start) / 60)
            atomic.write(soak.base / 'report.md', text.encode())
            print(
                f'{soak.rounds} rounds, {soak.starts} starts, {len(soak.wrong)} errors',
                flush=True,
            )
    finally:
        soak.close()
    text = soak.report((time.monotonic() - start) / 60)
    print(text)
    atomic.write(soak.base / 'report.md', text.encode())
    if args.write_docs:
        atomic.write(REPORT, text.encode())
    raise SystemExit(1 if soak.wrong or not soak.rounds else 0)


if __name__ == '__main__':
    main()
