"""Tables on disk, appended shard by shard, safe against interruption.

A shard is one NPZ file with the rows of some images in order. It is written
beside and renamed, so what is there is whole; a collection that was stopped goes
on after the last one.
"""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..utils import atomic
from .collect import Table, concatenate


class ShardStore:
    """The folder of one model's tables.

    Args:
        folder: Where to keep them.
        made_from: What the rows depend on (config, checkpoint, settings); a
            folder that was made from something else is refused.
        fresh: Throw away what is there.

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
        self.folder.mkdir(parents=True, exist_ok=True)
        if note.exists():
            before = json.loads(note.read_text())
            changed = sorted(
                key
                for key in {*before, *made_from}
                if before.get(key) != made_from.get(key)
            )
            if changed:
                key = changed[0]
                raise ValueError(
                    f'{self.folder} was made with other settings: {key} was '
                    f'{before.get(key)!r} and is now {made_from.get(key)!r}; give '
                    'another --out, or --fresh to collect anew'
                )
        else:
            write_text(note, json.dumps(made_from, indent=1))
        self._buffer: dict[str, list[Table]] = {}
        self._images: list = []

    @property
    def paths(self) -> list[Path]:
        """The finished shards, in order."""
        return sorted(self.folder.glob('shard_*.npz'))

    def image_ids(self) -> list:
        """Ids of the images that are done, in order."""
        ids: list = []
        for path in self.paths:
            with np.load(path) as shard:
                ids.extend(shard['image_ids'].tolist())
        return ids

    def add(self, image_id: int, tables: Mapping[str, Table]) -> None:
        """Add one image's rows; on disk only after :meth:`flush`."""
        self._images.append(image_id)
        for name, table in tables.items():
            self._buffer.setdefault(name, []).append(table)

    def flush(self) -> None:
        """Write the rows since the last call as one shard."""
        if not self._images:
            return
        arrays = {'image_ids': np.array(self._images)}
        for name, tables in self._buffer.items():
            for column, values in concatenate(tables).items():
                arrays[f'{name}/{column}'] = values
        write_npz(self.folder / f'shard_{len(self.paths):05d}.npz', arrays)
        self._buffer, self._images = {}, []

    def load(self, table: str) -> Table:
        """All rows of a table; an empty dictionary if it wasn't collected."""
        parts = []
        for path in self.paths:
            with np.load(path) as shard:
                names = [n for n in shard.files if n.startswith(f'{table}/')]
                parts.append({n.split('/', 1)[1]: shard[n] for n in names})
        parts = [part for part in parts if part]
        return concatenate(parts) if parts else {}


def write_text(path: Path, text: str) -> None:
    """Write beside, then rename: a reader never meets half a file."""
    atomic.write(path, text.encode('utf-8'))


def write_npz(path: Path, arrays: Mapping[str, NDArray]) -> None:
    """The same for arrays."""
    partial = path.with_name(path.name + '.partial')
    with open(partial, 'wb') as file:
        np.savez_compressed(file, **arrays)
    os.replace(partial, path)
