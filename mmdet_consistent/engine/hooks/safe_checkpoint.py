"""Checkpoints that survive a kill at any moment, and a fall-back from a bad one."""

import contextlib
import copy
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.fileio import LocalBackend
from mmengine.hooks import CheckpointHook
from mmengine.registry import HOOKS
from mmengine.runner import BaseLoop, IterBasedTrainLoop, Runner

from ...utils import atomic
from ..checkpoint import (
    CheckpointError,
    SpoiltWeightsError,
    check_resumable,
    newest_good,
)
from .finite_weights import FiniteWeightsMixin

MARKER = 'last_validation'


@HOOKS.register_module()
class SafeCheckpointHook(FiniteWeightsMixin, CheckpointHook):
    """mmengine's CheckpointHook, safe against kills, full disks and torn files.

    One line of a config turns it on, and all options stay::

        default_hooks = dict(checkpoint=dict(type='SafeCheckpointHook'))

    * A file is written beside its name, synced and renamed: complete or not there.
    * An older checkpoint is removed only after the newer one is on the disk.
    * Resuming without a given file (``resume=True``) takes the newest checkpoint
      that loads, and names those that don't, with the reason.
    * A validation that was interrupted by a kill is run again on resuming.
    * A second training in the same work folder is refused while the first one runs.
    * Resuming from a file that holds weights only is refused.
    * Weights that are NaN or infinite are neither saved nor resumed from, except
      constants that were so from the start.
    """

    file_backend: Any = None  # until training starts
    _lock: Any = None

    def before_run(self, runner: Runner) -> None:
        """Choose the checkpoint to resume from, if none is given.

        Raises:
            CheckpointError: If there are checkpoints, but not one is good.
        """
        super().before_run(runner)
        if not runner._resume or runner._load_from is not None:
            return
        path, problems = _from_main(lambda: self._choose(runner))
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
        """Refuse to resume from weights alone, or from spoilt ones."""
        if runner._resume:
            path = runner._load_from or 'the checkpoint'
            check_resumable(checkpoint, path, self.constants)

    def before_train(self, runner: Runner) -> None:
        """Lock the folder, set up safe writing, and catch up on a validation."""
        self._lock_folder(runner)
        super().before_train(runner)
        if not self.by_epoch and not isinstance(runner.train_loop, IterBasedTrainLoop):
            runner.logger.warning(
                'checkpoints between epochs (by_epoch=False) in a training by epochs: '
                'mmengine would resume one with its epoch from the start, so the '
                'result would be another; use by_epoch=True, or '
                "train_cfg=dict(type='IterBasedTrainLoop', ...)"
            )
        if isinstance(self.file_backend, LocalBackend):
            if self.file_client_args is None:
                self.backend_args = dict(backend='atomic_local')
            if is_main_process():
                for partial in Path(self.out_dir).glob(f'*{atomic.SUFFIX}'):
                    partial.unlink()
        self._validate_if_owed(runner)

    def after_train(self, runner: Runner) -> None:
        """Save what mmengine saves last, and release the folder."""
        super().after_train(runner)
        if self._lock is not None:
            self._lock.release()

    def after_val_epoch(self, runner: Runner, metrics: dict) -> None:
        """Save the best checkpoint, then note that this validation is done."""
        with self._saving():
            super().after_val_epoch(runner, metrics)
        if is_main_process() and isinstance(runner._train_loop, BaseLoop):
            atomic.write(Path(runner.work_dir, MARKER), _position(runner).encode())

    def _save_checkpoint(self, runner: Runner) -> None:
        with self._saving():
            super()._save_checkpoint(runner)

    @contextlib.contextmanager
    def _saving(self) -> Iterator[None]:
        """Save on the main rank. If the weights are spoilt, stop all ranks together."""
        refused = None
        try:
            with self._delaying_removals():
                yield
        except SpoiltWeightsError as error:
            refused = error
        refused = _from_main(lambda: refused)
        if refused is not None:
            raise refused

    @contextlib.contextmanager
    def _delaying_removals(self) -> Iterator[None]:
        """Remove old files at the end of the block: then the new one is there."""
        backend = self.file_backend
        if not isinstance(backend, LocalBackend):
            yield
            return
        removed: dict[str, tuple[int, int]] = {}
        self.file_backend = copy.copy(backend)
        self.file_backend.remove = lambda path: removed.update({path: _identity(path)})
        try:
            yield
        finally:
            self.file_backend = backend
        for path, identity in removed.items():
            # A file written again under the same name is a new one: it stays.
            if os.path.isfile(path) and _identity(path) == identity:
                backend.remove(path)

    def _lock_folder(self, runner: Runner) -> None:
        """Keep other trainings out, or stop, all ranks together."""
        # Imported where it is used: importing the package loads nothing of others.
        from ..folder_lock import FolderInUseError, FolderLock

        def lock() -> Optional[FolderInUseError]:
            self._lock = FolderLock(runner.work_dir)
            try:
                if not self._lock.acquire():
                    runner.logger.warning(
                        f'files in {runner.work_dir} cannot be locked: make sure that '
                        'no other training writes there'
                    )
            except FolderInUseError as error:
                return error
            return None

        refused = _from_main(lock)
        if refused is not None:
            raise refused

    def _choose(self, runner: Runner) -> tuple[Optional[Path], list[str]]:
        """Try what ``last_checkpoint`` names, then the others, newest first."""
        folder = self._folder(runner)
        pointer = Path(runner.work_dir, 'last_checkpoint')
        candidates, problems = [], []
        if pointer.is_file():
            named = Path(pointer.read_text().strip())
            # A work folder may have been moved as a whole.
            candidates = [p for p in (named, folder / named.name) if p.is_file()][:1]
            if not candidates:
                problems = [f'{pointer}: it names {str(named)!r}, which is not there']
        pattern = re.compile(re.escape(self.filename_tmpl).replace(r'\{\}', r'\d+'))
        others = [
            path
            for path in folder.glob('*')
            if pattern.fullmatch(path.name) and path not in candidates
        ]
        candidates += sorted(others, key=lambda p: p.stat().st_mtime_ns, reverse=True)
        path, bad = newest_good(candidates, self.constants)
        return path, problems + bad

    def _folder(self, runner: Runner) -> Path:
        if self.out_dir is None:
            return Path(runner.work_dir)
        return Path(self.out_dir, os.path.basename(runner.work_dir.rstrip(os.sep)))

    def _validate_if_owed(self, runner: Runner) -> None:
        """Run the last validation again if a kill came between checkpoint and it.

        mmengine would continue with the next epoch, or, after the last one, end
        without a result.
        """
        loop = runner.train_loop
        done, total = loop.epoch, loop.max_epochs
        if isinstance(loop, IterBasedTrainLoop):
            done, total = loop.iter, loop.max_iters
        marker = Path(runner.work_dir, MARKER)
        if done == 0:
            if is_main_process():
                marker.unlink(missing_ok=True)
            return
        if runner.val_loop is None:
            return
        loop._decide_current_val_interval()
        due = done >= loop.val_begin and (
            done % loop.val_interval == 0 or done == total
        )
        validated = _from_main(
            lambda: marker.is_file() and marker.read_text().strip() == _position(runner)
        )
        if due and not validated:
            runner.logger.info('The last validation was interrupted: running it again.')
            runner.val_loop.run()


def _position(runner: Runner) -> str:
    return f'epoch {runner.epoch}, iter {runner.iter}'


def _from_main(function: Any) -> Any:
    """Return to every rank what the function returns on the main one."""
    results = [function() if is_main_process() else None]
    broadcast_object_list(results)
    return results[0]


def _identity(path: str) -> tuple[int, int]:
    stat = os.stat(path)
    return stat.st_ino, stat.st_mtime_ns
