"""Speed and memory, measured against mmdet's own heads.

``cases`` says what to measure, ``contenders`` who takes part, ``scene`` makes
the inputs, ``workloads`` does the work, ``timing`` and ``memory`` measure it,
``measure`` joins them into rows; ``results``, ``compare``, ``report`` and
``plots`` read rows only.
"""
