"""Visiting logits block by block."""

from collections.abc import Iterator

from torch import Tensor

# Elements per block: on a CPU its temporaries fit into a core's cache; on a GPU they
# only have to be small beside the logits.
CPU_BLOCK, GPU_BLOCK = 2**16, 2**24


def block_size(tensor: Tensor) -> int:
    """Return the number of elements per block that suits the tensor's device."""
    return CPU_BLOCK if tensor.device.type == 'cpu' else GPU_BLOCK


def row_blocks(logits: Tensor, block: int) -> Iterator[tuple[slice, slice]]:
    """Yield slices of B and P that cover logits of shape (B, C, P).

    Args:
        logits: (B, C, P). A block holds all classes of its rows.
        block: Approximate number of elements per slice.
    """
    rows, classes, places = logits.shape
    row_step = max(1, block // (classes * max(places, 1)))
    place_step = max(1, block // classes)  # several rows together are whole ones
    for row in range(0, rows, row_step):
        for place in range(0, places, place_step):
            yield slice(row, row + row_step), slice(place, place + place_step)
