"""Hypothesis strategies that several tests share."""

from hypothesis import strategies as st


def boxes(smallest, largest, corner=100):
    """Boxes, xyxy in pixels, with sides and first corners in these ranges."""
    coordinate = st.integers(0, corner)
    side = st.integers(smallest, largest)
    return st.tuples(coordinate, coordinate, side, side).map(
        lambda b: [b[0], b[1], b[0] + b[2], b[1] + b[3]]
    )
