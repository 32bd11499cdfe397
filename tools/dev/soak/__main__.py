"""Train under fault after fault, and see whether anything is lost.

A small detector is trained once in peace. Then the same training is run again and
again while it is killed, its disk is filled, its checkpoints and images are damaged,
all at random times, and resumed each time. In the end weights and log must equal
those of the peaceful run bit for bit.

Example:
    python -m tools.dev.soak --minutes 60 --write-docs

The full disk needs a file system of its own (Linux, and the right to mount one);
where that is not given this fault is left out, and the report says so.
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

from .training import BATCH, IMAGES, ROOT, Training, equal, outcome

REPORT = ROOT / 'docs' / 'results' / 'reliability.md'


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--minutes', type=float, default=30)
    parser.add_argument(
        '--rounds', type=int, help='end after so many trainings, if time is left'
    )
    parser.add_argument('--epochs', type=int, default=100, help='of each training')
    parser.add_argument('--work-dir', default='work_dirs/soak')
    parser.add_argument('--seed', type=int, default=0, help='of the faults')
    parser.add_argument('--disk-mb', type=int, default=64, help='room to train in')
    parser.add_argument(
        '--write-docs', action='store_true', help=f'write {REPORT.relative_to(ROOT)}'
    )
    return parser.parse_args()


class Soak:
    """The state of the whole exercise."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.random = random.Random(args.seed)
        self.base = Path(args.work_dir).resolve()
        shutil.rmtree(self.base, ignore_errors=True)
        self.disk = self.base / 'disk'
        self.disk.mkdir(parents=True)
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
        """Stop what runs, and unmount the small disk."""
        if self.training is not None and self.training.process.poll() is None:
            self.training.process.kill()
            self.training.finish()
        if self.mounted:
            subprocess.run(['umount', str(self.disk)], check=True)

    # ------------------------------------------------------------ in peace

    def peaceful(self) -> None:
        """Train without a fault; remember weights, log and memory."""
        folder = self.base / 'peace'
        self.training = training = Training(self.data, folder, self.args.epochs)
        self.memory: list[tuple[int, float]] = []
        while training.process.poll() is None:
            if training.steps:
                self.memory.append((training.steps, training.memory_mb()))
            time.sleep(0.5)
        if training.finish() != 0:
            raise SystemExit('soak: no training at all:\n' + '\n'.join(training.lines))
        self.memory = [entry for entry in self.memory if entry[1] > 0]
        self.expected = outcome(folder, self.args.epochs)

    # ------------------------------------------------------------ with faults

    def round(self, end: float) -> bool:
        """One training under faults, to its end; False if time ran out first."""
        folder = self.disk / 'work'
        shutil.rmtree(folder, ignore_errors=True)
        saved = 0
        while True:
            if time.monotonic() > end:
                return False
            names = list(FAULTS) if self.mounted else [*FAULTS][:-1]
            fault = self.random.choice(names) if self.random.random() < 0.8 else None
            self.training = training = Training(self.data, folder, self.args.epochs)
            self.starts += 1
            if fault is None:
                # Left alone for longer, so that a training ends some day.
                training.wait_for(lambda: False, self.random.uniform(5, 90))
                if training.process.poll() is None:
                    training.process.kill()
                    self.faults['SIGKILL'] += 1
            else:
                training.wait_for(self._some_steps(training))
                FAULTS[fault](self, training, folder)
                self.faults[fault] += 1
            status = training.finish()
            self._judge_start(training, saved)
            files = [int(p.stem.split('_')[1]) for p in folder.glob('epoch_*.pth')]
            saved = max([0, *(e for e in files if self._is_whole(folder, e))])
            if status == 0:
                break
        self.rounds += 1
        for field, value in outcome(folder, self.args.epochs).items():
            if not equal(value, self.expected[field]):
                self.wrong.append(f'round {self.rounds}: {field} differ')
        return True

    def _some_steps(self, training: Training) -> Callable[[], bool]:
        steps = self.random.choice([0, self.random.randint(1, 40)])
        return lambda: training.steps >= steps

    def _judge_start(self, training: Training, saved: int) -> None:
        """A start must go on from the newest whole checkpoint, or from one before."""
        epoch = training.resumed_epoch()
        if epoch is None:
            if saved and training.steps:
                self.wrong.append(f'started anew although epoch {saved} was saved')
            return
        self.epochs_again += max(0, saved - epoch)
        if epoch < saved - 1:
            self.wrong.append(f'resumed at epoch {epoch} although {saved} was saved')

    @staticmethod
    def _is_whole(folder: Path, epoch: int) -> bool:
        try:
            load(folder / f'epoch_{epoch}.pth', 'cpu')
        except RuntimeError:
            return False
        return True

    def expect(self, what: bool, description: str) -> None:
        """Note what went wrong, if it did."""
        if not what:
            self.wrong.append(description)

    # ------------------------------------------------------------ the faults

    def _kill(self, training: Training, folder: Path) -> None:
        training.process.kill()

    def _terminate(self, training: Training, folder: Path) -> None:
        training.process.terminate()

    def _kill_while_writing(self, training: Training, folder: Path) -> None:
        training.wait_for(lambda: any(folder.glob(f'*{atomic.SUFFIX}')))
        training.process.kill()

    def _cut_checkpoint(self, training: Training, folder: Path) -> None:
        self._damage(training, folder, lambda content: content[: len(content) // 2])

    def _flip_bit(self, training: Training, folder: Path) -> None:
        def flip(content: bytes) -> bytes:
            changed = bytearray(content)
            changed[self.random.randrange(len(content))] ^= 1 << self.random.randrange(
                8
            )
            return bytes(changed)

        self._damage(training, folder, flip)

    def _damage(
        self, training: Training, folder: Path, how: Callable[[bytes], bytes]
    ) -> None:
        """Damage the newest checkpoint of a killed training, if an older one is left.

        Two damaged ones in a row would be more than any fallback can bear.
        """
        training.process.kill()
        training.finish()
        files = sorted(
            folder.glob('epoch_*.pth'), key=lambda p: int(p.stem.split('_')[1])
        )
        whole = [p for p in files if self._is_whole(folder, int(p.stem.split('_')[1]))]
        if len(whole) >= 2:
            whole[-1].write_bytes(how(whole[-1].read_bytes()))

    def _empty_pointer(self, training: Training, folder: Path) -> None:
        training.process.kill()
        training.finish()
        if (folder / 'last_checkpoint').is_file():
            (folder / 'last_checkpoint').write_text('')

    def _spoil_image(self, training: Training, folder: Path) -> None:
        path = self.random.choice(self.images)
        content = path.read_bytes()
        path.write_bytes(b'no image')
        try:
            training.finish()
        finally:
            path.write_bytes(content)
        if training.process.returncode != 0:  # it may just have been over
            named = training.said(path.name) and training.said('corrupt image')
            self.expect(named, f'a bad image was not named: {training.lines[-1:]}')

    def _fill_disk(self, training: Training, folder: Path) -> None:
        filler = self.disk / 'filler'
        try:
            with open(filler, 'wb') as file:
                while True:
                    file.write(b'0' * 65536)
                    file.flush()
        except OSError:
            pass  # full
        try:
            training.finish()
        finally:
            filler.unlink()
        if training.process.returncode != 0:
            said = training.said('No space left on device')
            self.expect(said, f'a full disk was not named: {training.lines[-1:]}')

    # ------------------------------------------------------------ the report

    def report(self, minutes: float) -> str:
        """The page, in Markdown."""
        steps = self._steps()
        lines = [
            '# Reliability, measured',
            '',
            f'Generated by `python -m tools.dev.soak --minutes {self.args.minutes:g} '
            f'--epochs {self.args.epochs} --seed {self.args.seed} --write-docs`.',
            '',
            f'A small consistent RetinaNet on blood cells ({self.args.epochs} epochs '
            f'of {IMAGES // BATCH} steps, augmented, validated every tenth epoch, on '
            'the CPU) was trained in peace once. The same training was then run under '
            f'faults at random times, and resumed after each, for {minutes:.0f} '
            f'minutes: {self.starts} starts, {self.rounds} trainings to their end.',
            '',
            '| fault | times |',
            '| --- | --- |',
            *(f'| {name} | {count} |' for name, count in self.faults.most_common()),
            '',
            '| outcome | |',
            '| --- | --- |',
            f'| trainings whose weights, optimizer and log equal the peaceful '
            f"one's, bit for bit | {self.rounds - self._spoilt()} of {self.rounds} |",
            f'| epochs trained again because their checkpoint was damaged, or not yet '
            f'pointed to | {self.epochs_again} |',
            f'| things that went wrong | {len(self.wrong)} |',
            f'| memory of the peaceful training, steps {0.2 * steps:.0f} to '
            f'{0.4 * steps:.0f} | {self._memory_of(0.2, 0.4)} |',
            f'| the same, steps {0.8 * steps:.0f} to {steps} '
            f'| {self._memory_of(0.8, 1.01)} |',
            '',
        ]
        if not self.mounted:
            lines += [
                'No file system could be mounted: the full disk is not in it.',
                '',
            ]
        lines += [f'- {entry}' for entry in self.wrong]
        lines.append(f'torch {torch.__version__}, Python {sys.version.split()[0]}.')
        return '\n'.join(lines) + '\n'

    def _steps(self) -> int:
        """Steps of a whole training."""
        return self.args.epochs * (IMAGES // BATCH)

    def _memory_of(self, low: float, high: float) -> str:
        """Median of the peaceful training's memory in a part of its steps."""
        steps = self._steps()
        part = [mb for step, mb in self.memory if low <= step / steps < high]
        return f'{statistics.median(part):.0f} MB' if part else 'too short to say'

    def _spoilt(self) -> int:
        return len({e.split(':')[0] for e in self.wrong if e.startswith('round')})


FAULTS = {
    'SIGKILL': Soak._kill,
    'SIGTERM': Soak._terminate,
    'SIGKILL while a checkpoint is written': Soak._kill_while_writing,
    'newest checkpoint cut in half': Soak._cut_checkpoint,
    'a bit of the newest checkpoint flipped': Soak._flip_bit,
    'pointer to the newest checkpoint emptied': Soak._empty_pointer,
    'an image made unreadable during training': Soak._spoil_image,
    'disk full': Soak._fill_disk,
}


def main() -> None:
    args = parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit('soak: stopped'))
    start = time.monotonic()
    end = start + 60 * args.minutes
    soak = Soak(args)
    try:
        soak.peaceful()
        print(f'in peace: {time.monotonic() - start:.0f} s', flush=True)
        while soak.rounds != args.rounds and soak.round(end):
            text = soak.report((time.monotonic() - start) / 60)
            atomic.write(soak.base / 'report.md', text.encode())
            print(
                f'{soak.rounds} rounds, {soak.starts} starts, {len(soak.wrong)} wrong',
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
