"""Checkpoints that survive a kill at any moment, and a way back from a bad one."""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.fileio import LocalBackend
from mmengine.hooks import CheckpointHook
from mmengine.registry import HOOKS
from mmengine.runner import (
    BaseLoop,
    EpochBasedTrainLoop,
    IterBasedTrainLoop,
    Runner,
)

from ...utils import atomic
from ..checkpoint import CheckpointError, check_resumable, newest_good

MARKER = 'last_validation'


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """mmengine's CheckpointHook, safe against kills, full disks and torn files.

    One line of a config puts it in place; every option stays::

        default_hooks = dict(checkpoint=dict(type='SafeCheckpointHook'))

    * A file is written beside its name, synced and renamed: whole or not there.
    * An older checkpoint is removed only after the newer one is on the disk.
    * Resuming without a given file (``resume=True``) takes the newest checkpoint
      that loads, and says which were no good and why.
    * A validation that a kill cut off is run again when training resumes.
    * A second training in the same work folder is refused while the first one runs.
    * Resuming from a file that holds weights only is refused.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._later: Optional[_RemoveLater] = None
        self._lock: Any = None

    def before_run(self, runner: Runner) -> None:
        """Choose the checkpoint to resume from, if it is to be found."""
        if not runner._resume or runner._load_from is not None:
            return
        choice: list = [None]
        if is_main_process():
            choice = [self._choose(runner)]
        broadcast_object_list(choice)
        path, problems = choice[0]
        for problem in problems:
            runner.logger.warning(f'not resuming from {problem}')
        if path is not None:
            if problems:
                runner.logger.warning(f'going back to the last good one: {path}')
            runner._load_from = str(path)
        elif problems:
            raise CheckpointError(
                f'no checkpoint in {self._folder(runner)} can be resumed from '
                f'({len(problems)} tried):\n  '
                + '\n  '.join(problems)
                + '\nRemove them to start anew, or name a good file'
            )

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Refuse to resume from weights alone."""
        if runner._resume:
            check_resumable(checkpoint, runner._load_from or 'the checkpoint')

    def before_train(self, runner: Runner) -> None:
        """Settle where and how files are written; catch up on a validation."""
        self._claim_folder(runner)
        super().before_train(runner)
        if not self.by_epoch and isinstance(runner.train_loop, EpochBasedTrainLoop):
            runner.logger.warning(
                'checkpoints between epochs (by_epoch=False) in a training by epochs: '
                'mmengine would resume one with its epoch from the start, so the '
                'result would be another; use by_epoch=True, or '
                "train_cfg=dict(type='IterBasedTrainLoop', ...)"
            )
        if isinstance(self.file_backend, LocalBackend):
            self._later = _RemoveLater(self.file_backend)
            self.file_backend = self._later
            if self.file_client_args is None:
                self.backend_args = dict(backend='atomic_local')
            if is_main_process():
                for partial in Path(self.out_dir).glob(f'*{atomic.SUFFIX}'):
                    partial.unlink()
        self._validate_if_owed(runner)

    def after_train(self, runner: Runner) -> None:
        """Save what mmengine saves last; leave the folder to others."""
        super().after_train(runner)
        if self._lock is not None:
            self._lock.release()

    def after_val_epoch(self, runner: Runner, metrics: dict) -> None:
        """Keep the best checkpoint, then note that this validation is done."""
        with self._removing_last():
            super().after_val_epoch(runner, metrics)
        if is_main_process() and isinstance(runner._train_loop, BaseLoop):
            self._marker(runner).parent.mkdir(parents=True, exist_ok=True)
            atomic.write(self._marker(runner), _position(runner).encode())

    def _claim_folder(self, runner: Runner) -> None:
        """Keep other trainings out, or stop, all ranks together."""
        # Imported where it is used: importing the package loads nothing of others.
        from ..folder_lock import FolderInUseError, FolderLock

        refused: list = [None]
        if is_main_process():
            self._lock = FolderLock(runner.work_dir)
            try:
                if not self._lock.acquire():
                    runner.logger.warning(
                        f'files in {runner.work_dir} cannot be locked: take care that '
                        'no other training writes there'
                    )
            except FolderInUseError as error:
                refused = [error]
        broadcast_object_list(refused)
        if refused[0] is not None:
            raise refused[0]

    def _save_checkpoint(self, runner: Runner) -> None:
        with self._removing_last():
            super()._save_checkpoint(runner)

    @contextlib.contextmanager
    def _removing_last(self) -> Iterator[None]:
        """Old files go when the block is done, not before the new one is there."""
        if self._later is None or self._later.held is not None:
            yield
            return
        with self._later.hold():
            yield

    def _choose(self, runner: Runner) -> tuple[Optional[Path], list[str]]:
        """Try what ``last_checkpoint`` names, then the others, newest first."""
        candidates = []
        pointer = Path(runner.work_dir, 'last_checkpoint')
        problems = []
        if pointer.is_file():
            named = Path(pointer.read_text().strip())
            # A work folder may have been moved as a whole.
            beside = self._folder(runner) / named.name
            found = [p for p in (named, beside) if p.is_file()]
            if found:
                candidates.append(found[0])
            else:
                problems.append(
                    f'{pointer}: it names {str(named)!r}, which is not there'
                )
        pattern = re.compile(re.escape(self.filename_tmpl).replace(r'\{\}', r'\d+'))
        others = [
            path
            for path in self._folder(runner).glob('*')
            if pattern.fullmatch(path.name) and path not in candidates
        ]
        candidates += sorted(others, key=lambda p: p.stat().st_mtime_ns, reverse=True)
        path, bad = newest_good(candidates)
        return path, problems + bad

    def _folder(self, runner: Runner) -> Path:
        if self.out_dir is None:
            return Path(runner.work_dir)
        return Path(self.out_dir, os.path.basename(runner.work_dir.rstrip(os.sep)))

    @staticmethod
    def _marker(runner: Runner) -> Path:
        return Path(runner.work_dir, MARKER)

    def _validate_if_owed(self, runner: Runner) -> None:
        """A checkpoint is saved before its epoch is validated; a kill may fall between.

        mmengine would go on with the next epoch, or, after the last one, end
        without a result.
        """
        loop = runner.train_loop
        done = loop.iter if isinstance(loop, IterBasedTrainLoop) else loop.epoch
        marker = self._marker(runner)
        if done == 0:
            if is_main_process() and marker.is_file():
                marker.unlink()
            return
        if runner.val_loop is None:
            return
        total = (
            loop.max_iters if isinstance(loop, IterBasedTrainLoop) else loop.max_epochs
        )
        loop._decide_current_val_interval()
        due = done >= loop.val_begin and (
            done % loop.val_interval == 0 or done == total
        )
        validated = [
            marker.is_file() and marker.read_text().strip() == _position(runner)
        ]
        broadcast_object_list(validated)
        if due and not validated[0]:
            runner.logger.info('The last validation was cut off: running it again.')
            runner.val_loop.run()


def _position(runner: Runner) -> str:
    return f'epoch {runner.epoch}, iter {runner.iter}'


class _RemoveLater:
    """A file backend that holds removals back while asked to."""

    def __init__(self, backend: LocalBackend) -> None:
        self.backend = backend
        self.held: Optional[dict[str, tuple[int, int]]] = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)

    def remove(self, path: str) -> None:
        """Remove the file, or note it for later."""
        if self.held is None:
            self.backend.remove(path)
        else:
            self.held[path] = _identity(path)

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Hold removals back; do them at the end, if the block succeeds."""
        self.held = {}
        try:
            yield
            for path, identity in self.held.items():
                # A file written again under the same name is a new one: it stays.
                if os.path.isfile(path) and _identity(path) == identity:
                    self.backend.remove(path)
        finally:
            self.held = None


def _identity(path: str) -> tuple[int, int]:
    stat = os.stat(path)
    return stat.st_ino, stat.st_mtime_ns
