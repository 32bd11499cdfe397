"""Which charts are drawn of the detectors' numbers: the paper's, and more."""

import numpy as np

from .charts import Chart, Series
from .collect import COUNT_BINS
from .measures import bin_index
from .summary import Summary, stage_name
from .tide import ERRORS, MEANING

UNIT = (0.0, 1.0)
DENSITY_BINS = 40


def accuracy(summaries: list[Summary]) -> list[Chart]:
    """AP bars (Figure 1), AP by IoU, errors, oracles."""
    names = ('AP', 'AP50', 'AP75', 'AP90', 'APs', 'APm', 'APl')
    bars, curve, errors, oracles = [], [], [], []
    kinds = max((list(s.oracles) for s in summaries), key=len)
    for i, summary in enumerate(summaries):
        name = summary.model.name
        values = np.array([100 * summary.scalars[n] for n in names])
        bars.append(Series(i, name, names, values))
        thresholds = summary.coco.iou_thrs
        ap = np.array([100 * summary.coco.mean(t) for t in thresholds])
        curve.append(Series(i, name, thresholds, ap))
        gains = np.array([100 * summary.tide.gain[e] for e in ERRORS])
        errors.append(Series(i, name, ERRORS, gains))
        values = np.array([100 * summary.oracles.get(k, np.nan) for k in kinds])
        oracles.append(Series(i, name, kinds, values))
    meaning = '; '.join(f'{key}: {text}' for key, text in MEANING.items())
    charts = [
        Chart(
            'ap',
            'Average precision',
            'COCO AP over IoU 0.50 to 0.95, at single thresholds, and by object '
            'size (small, medium, large). The paper’s Figure 1.',
            'metric',
            'AP (per cent)',
            bars,
            kind='bar',
            ylim=(0, None),
            digits=1,
        ),
        Chart(
            'ap-by-iou',
            'AP by IoU threshold',
            'How fast AP falls when boxes have to be exact.',
            'IoU threshold',
            'AP (per cent)',
            curve,
            ylim=(0, None),
            digits=1,
        ),
        Chart(
            'errors',
            'Where AP50 is lost (TIDE)',
            'What AP50 would gain were one kind of error mended, each alone. '
            f'{meaning}.',
            'kind of error',
            'gain in AP50 (points)',
            errors,
            kind='bar',
            ylim=(0, None),
            digits=2,
        ),
        Chart(
            'oracles',
            'What could still be won',
            'AP as it is; if the detections were ranked by their true IoU; if NMS '
            'had ranked by it already (what consistent training aims at); and if '
            'each detection lay exactly on the nearest object of its class that it '
            'overlaps by 0.1 or more, scores kept.',
            'oracle',
            'AP (per cent)',
            oracles,
            kind='bar',
            ylim=(0, None),
            digits=1,
        ),
    ]
    return charts


def before_and_after(summaries: list[Summary]) -> list[Chart]:
    """The paper's Figure 3: IoU of anchors before and after each regression."""
    charts, series = [], []
    thresholds = np.arange(10, COUNT_BINS, 5)
    for i, summary in enumerate(summaries):
        model = summary.model
        num_images = max(len(model.image_ids), 1)
        for stage, counts in enumerate(model.counts):
            at_least = counts[::-1].cumsum()[::-1][thresholds] / num_images
            series.append(
                Series(
                    i,
                    f'{model.name}, {stage_name(stage)}',
                    thresholds / COUNT_BINS,
                    np.where(at_least > 0, at_least, np.nan),
                    stage,
                )
            )
    if not series:
        return []
    charts.append(
        Chart(
            'positives',
            'Anchors that reach an IoU threshold',
            'Anchors of an image whose IoU with the nearest ground truth is at least '
            'the threshold, before and after each regression (exact counts over all '
            'anchors). Training labels know the prior anchors only, unless it is '
            'consistent. The paper’s Figure 3.',
            'IoU threshold',
            'anchors an image',
            series,
            log=True,
            digits=1,
        )
    )
    for i, summary in enumerate(summaries):
        anchors = summary.model.anchors
        for step in range(1, summary.model.num_stages):
            before = bin_index(anchors[f'iou_{step - 1}'], DENSITY_BINS)
            after = bin_index(anchors[f'iou_{step}'], DENSITY_BINS)
            grid = np.zeros((DENSITY_BINS, DENSITY_BINS))
            np.add.at(grid, (before, after), anchors['weight'])
            name = summary.model.name
            charts.append(
                Chart(
                    f'before-after-m{i}-step{step}',
                    f'{name}: IoU before and after regression {step}',
                    'Anchors by their IoU with the nearest ground truth before and '
                    'after; the stronger the colour, the more (logarithmic). Above '
                    'the dotted line the regression helped.',
                    f'IoU, {stage_name(step - 1)}',
                    f'IoU, {stage_name(step)}',
                    [Series(i, name, (), grid)],
                    kind='density',
                    xlim=UNIT,
                    ylim=UNIT,
                    diagonal=True,
                )
            )
    return charts


def score_and_place(summaries: list[Summary]) -> list[Chart]:
    """The paper's Figure 5: score against output IoU, output against input IoU."""
    mean, spread = [], []
    for i, summary in enumerate(summaries):
        line = summary.score_of_iou
        name = summary.model.name
        mean.append(Series(i, name, line.centers, line.mean))
        spread.append(Series(i, name, line.centers, line.std))
    known = [bool(s.model.anchors) for s in summaries]
    whose = 'Anchors' if any(known) else 'Final detections'
    if any(known) and not all(known):
        others = [s.model.name for s in summaries if not s.model.anchors]
        whose = f'Anchors (of {", ".join(others)}: final detections)'
    told = (
        f'{whose} in bins of their IoU, after the last regression, with the '
        'nearest ground truth; the score is that of the best class. '
    )
    charts = [
        Chart(
            'score-mean',
            'Mean score by output IoU',
            told + 'Rising is right: a better box should have a better score. The '
            'paper’s Figure 5a.',
            'output IoU',
            'mean score',
            mean,
            xlim=UNIT,
            ylim=(0, None),
        ),
        Chart(
            'score-spread',
            'Spread of the score by output IoU',
            told + 'Standard deviation; low is right: boxes of the same quality '
            'should get the same score. The paper’s Figure 5b.',
            'output IoU',
            'std of the score',
            spread,
            xlim=UNIT,
            ylim=(0, None),
        ),
    ]
    mean, spread = [], []
    for i, summary in enumerate(summaries):
        several = len(summary.iou_of_iou) > 1
        for step, line in enumerate(summary.iou_of_iou):
            name = summary.model.name
            name = f'{name}, regression {step + 1}' if several else name
            mean.append(Series(i, name, line.centers, line.mean, step))
            spread.append(Series(i, name, line.centers, line.std, step))
    if mean:
        told = (
            'Anchors in bins of their IoU with the nearest ground truth before a '
            'regression; the second one starts from where the first ended. '
        )
        charts += [
            Chart(
                'place-mean',
                'Mean output IoU by input IoU',
                told + 'Above the dotted line the regression helped. The paper’s '
                'Figure 5c.',
                'input IoU',
                'mean output IoU',
                mean,
                xlim=UNIT,
                ylim=UNIT,
                diagonal=True,
            ),
            Chart(
                'place-spread',
                'Spread of the output IoU by input IoU',
                told + 'Standard deviation; low is right: the outcome can be '
                'relied on. The paper’s Figure 5d.',
                'input IoU',
                'std of the output IoU',
                spread,
                xlim=UNIT,
                ylim=(0, None),
            ),
        ]
    return charts


def calibration(summaries: list[Summary]) -> list[Chart]:
    """Reliability diagram, localisation-aware."""
    right, quality = [], []
    centers = (np.arange(len(summaries[0].calibration.score)) + 0.5) / len(
        summaries[0].calibration.score
    )
    for i, summary in enumerate(summaries):
        name = summary.model.name
        right.append(Series(i, name, centers, summary.calibration.precision))
        quality.append(Series(i, name, centers, summary.calibration.quality))
    return [
        Chart(
            'reliability',
            'Does the score keep its promise?',
            'Share of the detections with such a score that are right (IoU of 0.5 '
            'or more with an object of their class that no better one took). On the '
            'dotted line a score is a probability.',
            'score',
            'share that is right',
            right,
            xlim=UNIT,
            ylim=UNIT,
            diagonal=True,
        ),
        Chart(
            'reliability-iou',
            'Does it promise the place too?',
            'The same with each right detection counted by its IoU: the quantity '
            'that the localisation-aware calibration error (LaECE) compares with the '
            'score.',
            'score',
            'mean IoU, wrong ones 0',
            quality,
            xlim=UNIT,
            ylim=UNIT,
            diagonal=True,
        ),
    ]
