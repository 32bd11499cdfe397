"""Tables on disk that survive an interruption.

A shard is one NPZ file with the rows of some images in order. Shards are written
atomically, so an interrupted collection resumes after the last one.
"""

import io
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..utils import atomic
from .columns import Table, concatenate


class ShardStore:
    """Folder with the tables of one detector.

    Args:
        folder: The folder.
        made_from: Everything that the rows depend on: config, checkpoint, settings.
        fresh: Delete existing rows.

    Raises:
        ValueError: If the folder holds rows made from something else.
    """

    def __init__(
        self, folder: Path, made_from: Mapping[str, Any], fresh: bool = False
    ) -> None:
        self.folder = Path(folder)
        note = self.folder / 'made_from.json'
        if fresh and note.exists():
            shutil.rmtree(self.folder)
        text = json.dumps(made_from, indent=1, default=str)
        if not note.exists():
            atomic.write(note, text.encode())
        before, now = json.loads(note.read_text()), json.loads(text)
        for key in sorted({*before, *now}):
            old, new = before.get(key), now.get(key)
            if old != new:
                raise ValueError(
                    f'{self.folder} was made with other settings: {key} was {old!r} '
                    f'and is now {new!r}; give another --out, or --fresh to start again'
                )
        self.pending: list[dict[str, Table]] = []  # images not on disk yet

    @property
    def paths(self) -> list[Path]:
        """Complete shards, in order."""
        return sorted(self.folder.glob('shard_*.npz'))

    def image_ids(self) -> list[int]:
        """Return the ids of the images that are done, in order."""
        return self.load('images').get('id', np.zeros(0)).tolist()

    def add(self, image_id: int, tables: Mapping[str, Table]) -> None:
        """Add the rows of one image. They reach the disk with :meth:`flush`."""
        self.pending.append({'images': {'id': np.array([image_id])}, **tables})

    def flush(self) -> None:
        """Write the rows since the last call as one shard."""
        if not self.pending:
            return
        arrays: Any = {
            f'{name}/{column}': values
            for name in self.pending[0]
            for column, values in concatenate(t[name] for t in self.pending).items()
        }
        content = io.BytesIO()
        np.savez_compressed(content, **arrays)
        path = self.folder / f'shard_{len(self.paths):05d}.npz'
        atomic.write(path, content.getvalue())
        self.pending = []

    def load(self, table: str) -> Table:
        """Read all rows of a table. Empty if it was not collected."""
        parts = []
        for path in self.paths:
            with np.load(path) as shard:
                names = [name for name in shard.files if name.startswith(f'{table}/')]
                parts.append({n.partition('/')[2]: shard[n] for n in names})
        return concatenate(parts)
