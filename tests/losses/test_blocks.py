import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdet_consistent.losses.blocks import row_blocks

SHAPE = st.tuples(st.integers(0, 9), st.integers(1, 5), st.integers(0, 9))


@settings(max_examples=300, deadline=None)
@given(shape=SHAPE, block=st.sampled_from([1, 2, 5, 12, 30, 100, 10_000]))
def test_row_blocks_cover_everything_once_within_the_block_size(shape, block):
    rows, classes, places = shape
    visits = torch.zeros(rows, places)
    sizes = []
    for row, place in row_blocks(torch.zeros(shape), block):
        part = visits[row, place]
        assert part.numel() > 0
        sizes.append(part.shape)
        part += 1
    assert (visits == 1).all()
    for height, width in sizes:
        # No larger than asked for, unless it is a single place.
        assert height * width * classes <= block or height == width == 1
    if sizes and sizes[0][0] < rows:
        # One row more would be too much; or one place more, if it is part of a row.
        height, width = sizes[0]
        more = (height + 1) * width if width == places else width + 1
        assert more * classes > block
