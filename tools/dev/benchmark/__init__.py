"""Speed and memory of our heads, measured against mmdet's own.

``cases`` defines settings and contenders, ``presets`` lists them, ``scene`` makes
inputs, ``workloads`` does the work and ``measure`` turns it into rows. ``results``,
``compare``, ``growth``, ``goals`` and ``report`` only read rows.
"""
