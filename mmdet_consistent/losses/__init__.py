"""Classification losses of one set of logits under several label sets."""

from .focal import focal_losses
from .softmax import mined_softmax_losses

__all__ = ['focal_losses', 'mined_softmax_losses']
