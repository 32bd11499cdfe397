"""The charts of an analysis: the paper's figures, and more."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from .charts import Chart, Series
from .collect import COUNT_BINS
from .measures import RECALLS, Binned, bin_index, nanmean, reliability
from .operating import Curve, class_curve, mean_curve
from .summary import Summary, positives, stage_name

DENSITY_BINS = 40
AP_NAMES = ('AP', 'AP50', 'AP75', 'AP90', 'APs', 'APm', 'APl')
SCORES = np.linspace(1, 0, 51)
FROM_ZERO: dict[str, Any] = dict(axes=dict(ylim=(0, None)))
WHOLE: dict[str, Any] = dict(axes=dict(xlim=(0, 1), ylim=(0, 1.03)))
UNIT: dict[str, Any] = dict(axes=dict(xlim=(0, 1), ylim=(0, None)))
SQUARE: dict[str, Any] = dict(axes=dict(xlim=(0, 1), ylim=(0, 1)), diagonal=True)

# Title, horizontal axis, vertical axis. The captions are in page.html.
TEXTS = {
    'ap': ('Average precision', 'metric', 'AP (per cent)'),
    'ap-by-iou': ('AP by IoU threshold', 'IoU threshold', 'AP (per cent)'),
    'errors': ('Where AP50 is lost (TIDE)', 'kind of error', 'gain in AP50 (points)'),
    'oracles': ('Room for improvement', 'oracle', 'AP (per cent)'),
    'pr': ('Precision by recall', 'recall', 'precision'),
    'f1-by-score': ('F1 by score threshold', 'score threshold', 'F1'),
    'pr-by-score': (
        'Precision and recall by score threshold',
        'score threshold',
        'precision, recall',
    ),
    'score-mean': ('Mean score by output IoU', 'output IoU', 'mean score'),
    'score-spread': (
        'Spread of the score by output IoU',
        'output IoU',
        'std of the score',
    ),
    'place-mean': ('Mean output IoU by input IoU', 'input IoU', 'mean output IoU'),
    'place-spread': (
        'Spread of the output IoU by input IoU',
        'input IoU',
        'std of the output IoU',
    ),
    'positives': (
        'Anchors that reach an IoU threshold',
        'IoU threshold',
        'anchors per image',
    ),
    'reliability': ('Precision by score', 'score', 'precision'),
    'reliability-iou': ('Precision × IoU by score', 'score', 'mean IoU (wrong: 0)'),
}


def all_charts(summaries: list[Summary]) -> dict[str, list[Chart]]:
    """Return the charts of each section of the page, in order."""
    return {
        'accuracy': accuracy(summaries),
        'operating': precision_and_recall(summaries),
        'score': score_and_localisation(summaries),
        'anchors': before_and_after(summaries),
        'calibration': calibration(summaries),
        'classes': by_class(summaries),
    }


def _chart(key: str, series: list[Series], **options: Any) -> Chart:
    """Return the chart with the words of ``TEXTS``."""
    return Chart(key, *TEXTS[key], series, **options)


def _binned(key: str, lines: list[tuple], part: str = 'mean', **options: Any) -> Chart:
    """Return a chart of (model, name, bins, variant) lines. ``part``: mean or std."""
    series = [
        Series(i, name, bins.centers, getattr(bins, part), variant)
        for i, name, bins, variant in lines
    ]
    return _chart(key, series, **options)


def _lines(summaries: list[Summary], bins: Sequence[Binned]) -> list[tuple]:
    """Return one line per model."""
    return [(i, s.model.name, b, 0) for i, (s, b) in enumerate(zip(summaries, bins))]


def _bars(
    key: str, summaries: list[Summary], values: list[dict[str, float]], digits: int = 1
) -> Chart:
    """Return a bar chart of shares by name, one dictionary per model, in per cent."""
    names = max(map(list, values), key=len)
    series = []
    for i, summary in enumerate(summaries):
        heights = np.array([100 * values[i].get(name, np.nan) for name in names])
        series.append(Series(i, summary.model.name, names, heights))
    return _chart(key, series, kind='bar', digits=digits, **FROM_ZERO)


def accuracy(summaries: list[Summary]) -> list[Chart]:
    """AP (Figure 1), AP by IoU, kinds of errors, oracles."""
    aps = [{name: s.scalars[name] for name in AP_NAMES} for s in summaries]
    by_iou = []
    for i, summary in enumerate(summaries):
        thresholds = summary.coco.iou_thrs
        values = np.array([100 * summary.coco.mean(iou) for iou in thresholds])
        by_iou.append(Series(i, summary.model.name, thresholds, values))
    return [
        _bars('ap', summaries, aps),
        _chart('ap-by-iou', by_iou, digits=1, **FROM_ZERO),
        _bars('errors', summaries, [s.tide.gains for s in summaries], digits=2),
        _bars('oracles', summaries, [s.oracles for s in summaries]),
    ]


def precision_and_recall(summaries: list[Summary]) -> list[Chart]:
    """Precision by recall, and both and F1 by score threshold: means over classes."""
    curves = [mean_curve(summary.matched, SCORES) for summary in summaries]
    precision = [
        [nanmean(row) for row in summary.coco.precision50] for summary in summaries
    ]
    f1 = [
        Series(i, summary.model.name, SCORES[::-1], curves[i].f1[::-1])
        for i, summary in enumerate(summaries)
    ]
    return [
        _by_recall('pr', summaries, precision),
        _chart('f1-by-score', f1, **WHOLE),
        _by_score('pr-by-score', summaries, curves),
    ]


def by_class(summaries: list[Summary]) -> list[Chart]:
    """Precision by recall and by score of each class, those with most objects first."""
    first = summaries[0]
    drawn = []
    for label in np.argsort(-first.matched.num_objects, kind='stable').tolist():
        name = first.truth.classes[label]
        key = f'-class{label}-' + re.sub(r'[\W_]+', '-', name)[:40]
        precision = [summary.coco.precision50[:, label] for summary in summaries]
        curves = [class_curve(summary.matched, label, SCORES) for summary in summaries]
        for chart in (
            _by_recall('pr', summaries, precision),
            _by_score('pr-by-score', summaries, curves),
        ):
            title = f'{name}: {chart.title[0].lower()}{chart.title[1:]}'
            drawn.append(chart._replace(key=f'{chart.key}{key}', title=title))
    return drawn


def _by_recall(key: str, summaries: list[Summary], precision: Sequence) -> Chart:
    """Return a chart of precision (101,) by recall, one line per model."""
    series = [
        Series(i, summary.model.name, RECALLS, np.asarray(precision[i]))
        for i, summary in enumerate(summaries)
    ]
    return _chart(key, series, **WHOLE)


def _by_score(key: str, summaries: list[Summary], curves: list[Curve]) -> Chart:
    """Return a chart of precision and recall by score, two lines per model."""
    series = [
        Series(i, f'{summary.model.name}, {part}', SCORES[::-1], values[::-1], variant)
        for i, summary in enumerate(summaries)
        for variant, part in enumerate(('precision', 'recall'))
        for values in [getattr(curves[i], part)]
    ]
    return _chart(key, series, **WHOLE)


def score_and_localisation(summaries: list[Summary]) -> list[Chart]:
    """Score by output IoU, and output IoU by input IoU (Figure 5)."""
    scores = _lines(summaries, [s.score_of_iou for s in summaries])
    charts = [
        _binned('score-mean', scores, **UNIT),
        _binned('score-spread', scores, 'std', **UNIT),
    ]
    steps = []
    for i, summary in enumerate(summaries):
        many = len(summary.iou_of_iou) > 1
        for step, bins in enumerate(summary.iou_of_iou):
            name = summary.model.name + f', regression {step + 1}' * many
            steps.append((i, name, bins, step))
    if steps:
        charts.append(_binned('place-mean', steps, **SQUARE))
        charts.append(_binned('place-spread', steps, 'std', **UNIT))
    return charts


def before_and_after(summaries: list[Summary]) -> list[Chart]:
    """IoU of anchors before and after each regression (Figure 3)."""
    thresholds = np.arange(10, COUNT_BINS, 5) / COUNT_BINS
    series, maps = [], []
    for i, summary in enumerate(summaries):
        model = summary.model
        reached = np.stack([positives(model.counts, iou) for iou in thresholds], axis=1)
        per_image = np.where(reached > 0, reached, np.nan) / len(model.image_ids)
        for stage, line in enumerate(per_image):
            name = f'{model.name}, {stage_name(stage)}'
            series.append(Series(i, name, thresholds, line, stage))
        maps += [_density(i, summary, step) for step in range(1, model.num_stages)]
    if not series:
        return []
    return [_chart('positives', series, axes=dict(yscale='log'), digits=1), *maps]


def _density(i: int, summary: Summary, step: int) -> Chart:
    """Return the map of IoU before and after one regression of model i."""
    model = summary.model
    before, after = (
        bin_index(model.anchors[f'iou_{stage}'], DENSITY_BINS)
        for stage in (step - 1, step)
    )
    grid = np.zeros((DENSITY_BINS, DENSITY_BINS))
    np.add.at(grid, (before, after), model.anchors['weight'])
    return Chart(
        f'before-after-m{i}-step{step}',
        f'{model.name}: IoU before and after regression {step}',
        f'IoU, {stage_name(step - 1)}',
        f'IoU, {stage_name(step)}',
        [Series(i, model.name, (), grid)],
        kind='density',
        **SQUARE,
    )


def calibration(summaries: list[Summary]) -> list[Chart]:
    """Reliability diagrams, of precision and of precision × IoU."""
    _, precision, quality = zip(*(reliability(s.matched) for s in summaries))
    return [
        _binned('reliability', _lines(summaries, precision), **SQUARE),
        _binned('reliability-iou', _lines(summaries, quality), **SQUARE),
    ]
