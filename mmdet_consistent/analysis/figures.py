"""The charts of an analysis: the paper's figures, and more."""

from typing import Any

import numpy as np

from .charts import Chart, Series
from .collect import COUNT_BINS
from .measures import bin_index
from .summary import Summary, stage_name
from .tide import MEANING

DENSITY_BINS = 40
AP_NAMES = ('AP', 'AP50', 'AP75', 'AP90', 'APs', 'APm', 'APl')
FROM_ZERO: dict[str, Any] = dict(ylim=(0, None))
UNIT: dict[str, Any] = dict(xlim=(0.0, 1.0))
SQUARE: dict[str, Any] = dict(xlim=(0.0, 1.0), ylim=(0.0, 1.0), diagonal=True)

# Title, caption, horizontal axis, vertical axis.
TEXTS = {
    'ap': (
        'Average precision',
        'COCO AP over IoU 0.50 to 0.95, at single thresholds, and by object size '
        '(small, medium, large). The paper’s Figure 1.',
        'metric',
        'AP (per cent)',
    ),
    'ap-by-iou': (
        'AP by IoU threshold',
        'How fast AP falls as boxes are required to be more exact.',
        'IoU threshold',
        'AP (per cent)',
    ),
    'errors': (
        'Where AP50 is lost (TIDE)',
        'Gain in AP50 if only that kind of error were corrected. '
        + '; '.join(f'{key}: {text}' for key, text in MEANING.items())
        + '.',
        'kind of error',
        'gain in AP50 (points)',
    ),
    'oracles': (
        'Room for improvement',
        'AP as it is; if detections were ranked by their true IoU; if NMS had ranked '
        'them by it already (the aim of consistent training); and if each detection '
        'lay exactly on the nearest object of its class that it overlaps by 0.1 or '
        'more, with unchanged scores.',
        'oracle',
        'AP (per cent)',
    ),
    'score-mean': (
        'Mean score by output IoU',
        'A rising line is good: better boxes should have better scores. The paper’s '
        'Figure 5a.',
        'output IoU',
        'mean score',
    ),
    'score-spread': (
        'Spread of the score by output IoU',
        'Standard deviation. Low is good: boxes of the same quality should have the '
        'same score. The paper’s Figure 5b.',
        'output IoU',
        'std of the score',
    ),
    'place-mean': (
        'Mean output IoU by input IoU',
        'Above the dotted line the regression improves boxes. The paper’s Figure 5c.',
        'input IoU',
        'mean output IoU',
    ),
    'place-spread': (
        'Spread of the output IoU by input IoU',
        'Standard deviation. Low is good: the outcome of the regression is '
        'predictable. The paper’s Figure 5d.',
        'input IoU',
        'std of the output IoU',
    ),
    'positives': (
        'Anchors that reach an IoU threshold',
        'Anchors per image whose IoU with the nearest ground truth reaches the '
        'threshold, before and after each regression (exact counts over all '
        'anchors). Without consistent training, labels come from the prior anchors '
        'alone. The paper’s Figure 3.',
        'IoU threshold',
        'anchors per image',
    ),
    'reliability': (
        'Precision by score',
        'Share of detections with that score that are right: IoU of 0.5 or more with '
        'an object of their class that no better-scored detection found. On the '
        'dotted line the score is a probability.',
        'score',
        'precision',
    ),
    'reliability-iou': (
        'Precision × IoU by score',
        'Mean IoU of detections with that score, counting 0 for wrong ones. The '
        'localisation-aware calibration error (LaECE) compares it with the score.',
        'score',
        'mean IoU (wrong: 0)',
    ),
}


def all_charts(summaries: list[Summary]) -> dict[str, list[Chart]]:
    """Return the charts of each section of the page, in order."""
    return {
        'accuracy': accuracy(summaries),
        'score': score_and_localisation(summaries),
        'anchors': before_and_after(summaries),
        'calibration': calibration(summaries),
    }


def _chart(key: str, series: list[Series], note: str = '', **options: Any) -> Chart:
    """Return the chart with the words of ``TEXTS``; ``note`` begins the caption."""
    title, caption, xlabel, ylabel = TEXTS[key]
    return Chart(key, title, note + caption, xlabel, ylabel, series, **options)


def _lines(
    key: str,
    summaries: list[Summary],
    curves: list[tuple],
    note: str = '',
    **options: Any,
) -> Chart:
    """Return a line chart of one curve (x, y) per model."""
    pairs = enumerate(zip(summaries, curves))
    series = [Series(i, summary.model.name, *curve) for i, (summary, curve) in pairs]
    return _chart(key, series, note, **options)


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
    results = [s.coco for s in summaries]
    by_iou = [
        (r.iou_thrs, np.array([100 * r.mean(iou) for iou in r.iou_thrs]))
        for r in results
    ]
    return [
        _bars('ap', summaries, aps),
        _lines('ap-by-iou', summaries, by_iou, digits=1, **FROM_ZERO),
        _bars('errors', summaries, [s.tide.gains for s in summaries], digits=2),
        _bars('oracles', summaries, [s.oracles for s in summaries]),
    ]


def score_and_localisation(summaries: list[Summary]) -> list[Chart]:
    """Score by output IoU, and output IoU by input IoU (Figure 5)."""
    blind = [s.model.name for s in summaries if not s.model.anchors]
    what = 'Anchors' if len(blind) < len(summaries) else 'Final detections'
    if 0 < len(blind) < len(summaries):
        what += f' (of {", ".join(blind)}: final detections)'
    note = (
        f'{what} in bins of their IoU, after the last regression, with the nearest '
        'ground truth; the score is that of the best class. '
    )
    bins = [s.score_of_iou for s in summaries]
    options = {**UNIT, **FROM_ZERO}
    means = [(b.centers, b.mean) for b in bins]
    spreads = [(b.centers, b.std) for b in bins]
    charts = [
        _lines('score-mean', summaries, means, note, **options),
        _lines('score-spread', summaries, spreads, note, **options),
    ]
    mean, spread = [], []
    for i, summary in enumerate(summaries):
        for step, line in enumerate(summary.iou_of_iou):
            name = summary.model.name
            if len(summary.iou_of_iou) > 1:
                name += f', regression {step + 1}'
            mean.append(Series(i, name, line.centers, line.mean, step))
            spread.append(Series(i, name, line.centers, line.std, step))
    note = (
        'Anchors in bins of their IoU with the nearest ground truth before a '
        'regression. The second regression starts from the result of the first. '
    )
    if mean:
        charts += [
            _chart('place-mean', mean, note, **SQUARE),
            _chart('place-spread', spread, note, **options),
        ]
    return charts


def before_and_after(summaries: list[Summary]) -> list[Chart]:
    """IoU of anchors before and after each regression (Figure 3)."""
    thresholds = np.arange(10, COUNT_BINS, 5)
    series, maps = [], []
    for i, summary in enumerate(summaries):
        model = summary.model
        for stage, counts in enumerate(model.counts):
            at_least = counts[::-1].cumsum()[::-1][thresholds] / len(model.image_ids)
            name = f'{model.name}, {stage_name(stage)}'
            y = np.where(at_least > 0, at_least, np.nan)
            series.append(Series(i, name, thresholds / COUNT_BINS, y, stage))
        maps += [_density(i, summary, step) for step in range(1, model.num_stages)]
    if not series:
        return []
    return [_chart('positives', series, log=True, digits=1), *maps]


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
        'Anchors by their IoU with the nearest ground truth before and after the '
        'regression; stronger colours mean more anchors (logarithmic). Above the '
        'dotted line the regression improved the box.',
        f'IoU, {stage_name(step - 1)}',
        f'IoU, {stage_name(step)}',
        [Series(i, model.name, (), grid)],
        kind='density',
        **SQUARE,
    )


def calibration(summaries: list[Summary]) -> list[Chart]:
    """Reliability diagrams, of precision and of precision × IoU."""
    precision, quality = (
        [(s.calibration[part].centers, s.calibration[part].mean) for s in summaries]
        for part in (1, 2)
    )
    return [
        _lines('reliability', summaries, precision, **SQUARE),
        _lines('reliability-iou', summaries, quality, **SQUARE),
    ]
