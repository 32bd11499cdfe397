"""Analysis of detectors: collect, measure, draw, report.

``detector`` runs a model over a data set and stores arrays on disk; ``summary``
computes numbers from them by ``matching``, ``measures``, ``tide`` and ``coco_eval``;
``figures``, ``tables`` and ``cases`` say what is shown; ``report`` writes it all.
"""
