"""Consistent versions of mmdet's other anchor-based heads."""
