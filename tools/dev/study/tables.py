"""Rows and tables of the study."""

from typing import NamedTuple, Optional


def thresholds(*pairs: tuple) -> list:
    """Return the later stages' assigners from (positive, negative) IoUs."""
    kind = 'SecondPassAssigner'
    return [dict(type=kind, pos_iou_thr=p, neg_iou_thr=n) for p, n in pairs]


# Scores trained to be the IoU of the final box.
QUALITY = dict(
    loss_cls=dict(type='QualityFocalLoss', use_sigmoid=True, beta=2.0, loss_weight=1.0),
    additions=[dict(type='QualityTargets')],
)

# Options of the head, and custom_hooks of the training.
_ROWS: dict[str, dict] = {
    'consistent': {},
    'cascade': dict(variant='cascade'),
    'gated_cascade': dict(variant='gated_cascade'),
    '0.5_0.5': dict(stage_assigners=thresholds((0.5, 0.5))),
    '0.7_0.6': dict(stage_assigners=thresholds((0.7, 0.6))),
    '0.8_0.7': dict(stage_assigners=thresholds((0.8, 0.7))),
    '2_1': dict(label_stages=2, reg_stages=1),
    '3_2': dict(label_stages=3, reg_stages=2),
    '1_2': dict(label_stages=1, reg_stages=2),
    'alpha_0.5': dict(stage_loss_weights=(1.0, 0.5)),
    'refined_labels_only': dict(stage_loss_weights=(0.0, 1.0)),
    'first_normalizer': dict(cls_normalizer='first'),
    'stage_normalizer': {},
    'sharper_stds': dict(
        stage_bbox_coders=dict(
            type='DeltaXYWHBBoxCoder', target_stds=[0.5, 0.5, 0.5, 0.5]
        )
    ),
    'aligned': dict(additions=[dict(type='AlignedFeatures')]),
    # One label set, as in a baseline: separates the second regression from the labels.
    'aligned_1_2': dict(label_stages=1, additions=[dict(type='AlignedFeatures')]),
    'soft_labels': dict(
        additions=[dict(type='SoftLabels', low=0.5, high=0.7)],
        stage_assigners=thresholds((0.5, 0.5)),
    ),
    'alpha_schedule': dict(custom_hooks=[dict(type='StageLossWeightHook', end=4)]),
    'quality_baseline': dict(label_stages=1, reg_stages=1, **QUALITY),
    'quality_focal': QUALITY,
    'loc_confidence': dict(additions=[dict(type='LocalizationConfidence')]),
    'aligned_confident': dict(
        additions=[dict(type='AlignedFeatures'), dict(type='LocalizationConfidence')]
    ),
    # All that can be combined; the quality focal loss is another way to score.
    'union': dict(
        additions=[
            dict(type='AlignedFeatures'),
            dict(type='SoftLabels', low=0.5, high=0.7),
            dict(type='LocalizationConfidence'),
        ],
        stage_assigners=thresholds((0.5, 0.5)),
        custom_hooks=[dict(type='StageLossWeightHook', end=4)],
    ),
}
# The committed results were made with one normaliser per stage, whatever the head's
# default is today. None is mmdet's own head, the baseline.
ROWS: dict[str, Optional[dict]] = {
    'baseline': None,
    **{name: dict(dict(cls_normalizer='stage'), **row) for name, row in _ROWS.items()},
}
# On photos, each head has its own default, and what is recommended.
ROWS.update(
    default={},
    default_stage=dict(cls_normalizer='stage'),
    default_2_1=dict(label_stages=2, reg_stages=1),
    default_aligned=dict(additions=[dict(type='AlignedFeatures')]),
    default_aligned_1_2=_ROWS['aligned_1_2'],
    default_aligned_confident=_ROWS['aligned_confident'],
    stage_aligned_confident=dict(
        cls_normalizer='stage', additions=_ROWS['aligned_confident']['additions']
    ),
)
PRETRAINING = 'pretraining'  # the baseline from which all rows start


class Table(NamedTuple):
    """A table of the paper, or one of our own.

    Attributes:
        title: Title of the page.
        model: ``retinanet`` or ``ssd``: the config is MODEL_DATA.py.
        rows: Name in the table to name in :data:`ROWS`; the first is the baseline.
        paper: Name in the table to (table, row) of the paper's figures.
    """

    title: str
    model: str
    rows: dict[str, str]
    paper: dict[str, tuple]


TABLES = {
    'table1': Table(
        'Table 1 in miniature: the detectors of Figure 4',
        'retinanet',
        {n: n for n in ('baseline', 'cascade', 'gated_cascade', 'consistent')},
        {n: (1, n) for n in ('baseline', 'cascade', 'gated_cascade', 'consistent')},
    ),
    'table2': Table(
        'Table 2 in miniature: thresholds of the second labels',
        'retinanet',
        {
            'baseline': 'baseline',
            '0.5_0.5': '0.5_0.5',
            '0.6_0.5': 'consistent',
            '0.7_0.6': '0.7_0.6',
        },
        {
            'baseline': (3, '1_1'),
            '0.5_0.5': (2, '0.5_0.5'),
            '0.6_0.5': (2, '0.6_0.5'),
            '0.7_0.6': (2, '0.7_0.6'),
        },
    ),
    'table3': Table(
        'Table 3 in miniature: numbers of label sets and of regressions',
        'retinanet',
        {'1_1': 'baseline', '2_1': '2_1', '2_2': 'consistent', '3_2': '3_2'},
        {n: (3, n) for n in ('1_1', '2_1', '2_2', '3_2')},
    ),
    'table5': Table(
        'Table 5 in miniature: SSD',
        'ssd',
        {'baseline': 'baseline', 'consistent': 'consistent'},
        {'baseline': (5, 'r50_baseline'), 'consistent': (5, 'r50_consistent')},
    ),
    'normalizer': Table(
        "Eq. 1's normaliser: one per stage, or one for all",
        'retinanet',
        {n: n for n in ('stage_normalizer', 'first_normalizer', 'baseline')},
        {},
    ),
    'normalizer_ssd': Table(
        "Eq. 1's normaliser: one per stage, or one for all (SSD)",
        'ssd',
        {n: n for n in ('stage_normalizer', 'first_normalizer', 'baseline')},
        {},
    ),
    'gpu': Table(
        'Table 1 on a GPU: 640 × 480 pixels, ImageNet weights, mixed precision',
        'retinanet_gpu',
        {
            'baseline': 'baseline',
            'consistent': 'default',
            'recommended': 'default_aligned_confident',
        },
        {},
    ),
    'wider_head': Table(
        'A wider and deeper head',
        'retinanet_wide',
        {n: n for n in ('baseline', 'consistent', '2_1')},
        {},
    ),
    'from_scratch': Table(
        'Without pretraining',
        'retinanet_scratch',
        {n: n for n in ('baseline', 'consistent')},
        {},
    ),
    'additions': Table(
        'Beyond the paper',
        'retinanet',
        {
            n: n
            for n in (
                *('baseline', 'consistent', 'loc_confidence'),
                *('aligned', 'aligned_1_2', 'soft_labels', 'alpha_schedule'),
                *('quality_baseline', 'quality_focal', 'aligned_confident', 'union'),
            )
        },
        {},
    ),
    'photos': Table(
        'Photos, ImageNet backbone: RetinaNet',
        'retinanet_lite',
        {
            'baseline': 'baseline',
            'consistent': 'default',
            'consistent, stage normalizer': 'default_stage',
            'labels alone (2, 1)': 'default_2_1',
            'aligned': 'default_aligned',
            'aligned + confidence': 'default_aligned_confident',
            'aligned + confidence, stage': 'stage_aligned_confident',
        },
        {},
    ),
    'photos_ssd': Table(
        'Photos, ImageNet backbone: SSD',
        'ssd_lite',
        {
            'baseline': 'baseline',
            'consistent': 'default',
            'aligned + confidence': 'default_aligned_confident',
        },
        {},
    ),
    'photos_atss': Table(
        'Photos, ImageNet backbone: ATSS',
        'atss_lite',
        {
            'baseline': 'baseline',
            'consistent': 'default',
            'aligned': 'default_aligned',
        },
        {},
    ),
    'photos_gfl': Table(
        'Photos, ImageNet backbone: GFL',
        'gfl_lite',
        {
            'baseline': 'baseline',
            'consistent': 'default',
            'aligned': 'default_aligned',
        },
        {},
    ),
    'study_notes': Table(
        'What drives the difference',
        'retinanet',
        {
            n: n
            for n in (
                *('baseline', 'consistent', '2_1', '1_2', '0.5_0.5'),
                *('0.7_0.6', '0.8_0.7', 'sharper_stds', 'first_normalizer'),
                *('alpha_0.5', 'refined_labels_only'),
            )
        },
        {},
    ),
}
