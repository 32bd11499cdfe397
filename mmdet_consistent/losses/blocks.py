"""Visiting logits a block at a time."""

from collections.abc import Iterator

from torch import Tensor

# Elements looked at together: on a CPU a block's temporaries fit into a core's
# cache, on a GPU they only have to stay small beside the logits.
CPU_BLOCK, GPU_BLOCK = 2**16, 2**24


def row_blocks(logits: Tensor, block: int) -> Iterator[tuple[slice, slice]]:
    """Slices of B and P that cover logits of shape (B, C, P), all classes together.

    Args:
        logits: Shape (B, C, P).
        block: Elements of a slice, about.
    """
    rows, classes, places = logits.shape
    row_step = max(1, block // (classes * max(places, 1)))
    place_step = max(1, block // classes)  # several rows together are whole ones
    for row in range(0, rows, row_step):
        for place in range(0, places, place_step):
            yield slice(row, row + row_step), slice(place, place + place_step)
