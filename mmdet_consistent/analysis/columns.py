"""Tables as dictionaries from column names to arrays.

A table of detections has the columns ``image_id`` (int64), ``label`` (int32, index
into the classes), ``score`` (float32) and ``x1``, ``y1``, ``x2``, ``y2`` (float32,
pixels of the original image), in any order of rows.
"""

from collections.abc import Iterable, Sequence
from typing import Union

import numpy as np
from numpy.typing import NDArray

Table = dict[str, NDArray]
CORNERS = ('x1', 'y1', 'x2', 'y2')


def boxes_of(table: Table, rows: Union[NDArray, slice] = slice(None)) -> NDArray:
    """Return the boxes of some rows (default: all) as (N, 4), xyxy."""
    return np.stack([table[name][rows] for name in CORNERS], axis=1)


def corner_columns(boxes: NDArray, prefix: str = '') -> Table:
    """Return boxes (N, 4), xyxy, as four columns whose names begin with ``prefix``."""
    return {f'{prefix}{name}': boxes[:, i] for i, name in enumerate(CORNERS)}


def select_images(table: Table, image_ids: Sequence) -> Table:
    """Return the rows that belong to one of the images."""
    keep = np.isin(table['image_id'], image_ids)
    return {name: column[keep] for name, column in table.items()}


def rows_by_image(detections: Table) -> dict[int, NDArray]:
    """Return the row indices of each image, by falling score."""
    order = np.lexsort((-detections['score'], detections['image_id']))
    ids, starts = np.unique(detections['image_id'][order], return_index=True)
    return dict(zip(ids.tolist(), np.split(order, starts[1:])))


def concatenate(tables: Iterable[Table]) -> Table:
    """Stack tables that have the same columns. Of no tables, an empty one."""
    tables = list(tables) or [{}]
    return {name: np.concatenate([t[name] for t in tables]) for name in tables[0]}
