"""Write everything that was found out into one folder."""

import csv
import io
import json
import platform
from collections.abc import Iterable, Sequence
from importlib import import_module
from pathlib import Path

import numpy as np

from . import charts, coco_eval, report, tables
from .collect import CORNERS, Table
from .ground_truth import GroundTruth
from .shards import write_text
from .summary import Model, Summary, summarize


def write_analysis(
    models: Sequence[Model],
    truth: GroundTruth,
    folder: Path,
    command: str,
    num_cases: int = 4,
) -> list[Summary]:
    """Write page, figures, tables and numbers of some detectors.

    Args:
        models: What was collected, over the same images.
        truth: Their ground truth.
        folder: Gets ``report.html``, ``summary.json``, ``tables/*.csv``,
            ``figures/*.svg`` and ``.png``.
        command: How it was made.
        num_cases: Worst cases of each model.

    Returns:
        The detectors' numbers.
    """
    summaries = [summarize(model, truth) for model in models]
    for name in ('tables', 'figures'):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for chart in report.all_charts(summaries):
        charts.save(chart, folder / 'figures')
        write_csv(folder / 'tables' / f'{chart.key}.csv', *chart.table())
    by_class = tables.class_table(summaries, truth.classes)
    write_csv(folder / 'tables' / 'classes.csv', *by_class)
    write_csv(folder / 'tables' / 'sizes.csv', *tables.size_table(summaries))
    numbers = {s.model.name: {**s.scalars, 'oracles': s.oracles} for s in summaries}
    write_text(folder / 'summary.json', json.dumps(_plain(numbers), indent=1))
    page = report.build_page(summaries, truth, command, facts(), num_cases)
    write_text(folder / 'report.html', page)
    return summaries


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence]) -> None:
    """A table as CSV; floats with four decimals, a dash or NaN as nothing."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator='\n')
    writer.writerow(header)
    for row in rows:
        cells = [f'{v:.4f}' if isinstance(v, float) else v for v in row]
        writer.writerow(['' if c in ('nan', '–') else c for c in cells])
    write_text(path, out.getvalue())


def write_coco_results(path: Path, detections: Table, truth: GroundTruth) -> None:
    """Detections as a COCO result file."""
    boxes = np.stack([detections[name] for name in CORNERS], axis=1)
    boxes[:, 2:] -= boxes[:, :2]
    cat_ids = np.array(truth.cat_ids)[detections['label']].tolist()
    columns = (detections['image_id'].tolist(), cat_ids, boxes.tolist())
    rows = zip(*columns, detections['score'].tolist())
    names = ('image_id', 'category_id', 'bbox', 'score')
    write_text(path, json.dumps([dict(zip(names, row)) for row in rows]))


def facts() -> str:
    """What the numbers were made with."""
    # (Of the modules, as mmdet may come from its fork.)
    names = ('mmdet_consistent', 'mmdet', 'torch', 'numpy')
    versions = ', '.join(f'{name} {import_module(name).__version__}' for name in names)
    return (
        f'Python {platform.python_version()}, {versions}; COCO evaluation by '
        f'{coco_eval.backend_in_use()}.'
    )


def _plain(value: object) -> object:
    """NaN is not JSON."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return None if isinstance(value, float) and np.isnan(value) else value
