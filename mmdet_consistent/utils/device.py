"""What depends on where tensors are."""

from torch import Tensor


def is_on_cpu(tensor: Tensor) -> bool:
    """Whether choosing some of a tensor's rows makes nobody wait.

    Elsewhere the host would have to learn how many there are, and so wait for the
    device; there all rows are computed, and those not meant are masked.
    """
    return tensor.device.type == 'cpu'
