"""Analysis of detectors: collect, measure, draw, report.

``collect`` turns a model and a dataset into arrays on disk; ``matching``,
``measures``, ``tide`` and ``coco_eval`` turn arrays into numbers; ``figures``,
``cases`` and ``report`` turn numbers into pictures and one HTML page.
"""
