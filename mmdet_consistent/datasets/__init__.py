"""Small data sets, their conversion, and data sets that check their data."""

from .checked import CheckedCocoDataset, CheckedVOCDataset, CheckedXMLDataset

__all__ = ['CheckedCocoDataset', 'CheckedVOCDataset', 'CheckedXMLDataset']
