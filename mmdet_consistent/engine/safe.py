"""Importing this module calls :func:`~mmdet_consistent.engine.make_safe`.

In a config, for mmdet's own tools::

    custom_imports = dict(imports=['mmdet_consistent.engine.safe'])
"""

from .checkpoint import make_safe

make_safe()
