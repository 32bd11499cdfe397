"""Choices that depend on the device."""

from torch import Tensor


def is_on_cpu(tensor: Tensor) -> bool:
    """Return whether selecting rows of a tensor costs no synchronisation.

    On a GPU the host would have to wait for the number of rows; there all rows are
    computed, and the others are masked.
    """
    return tensor.device.type == 'cpu'
