"""Write the page, figures, tables and numbers of an analysis into one folder."""

import csv
import importlib
import importlib.resources
import io
import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Optional

import jinja2
import numpy as np

from ..utils import atomic
from . import cases, charts, coco_eval, figures, tables
from .annotations import AnnotatedSet
from .summary import Model, Summary

TITLES = {
    'overview': 'Overview',
    'accuracy': 'Accuracy',
    'score': 'Score and localisation',
    'anchors': 'Anchors before and after regression',
    'calibration': 'Calibration',
    'cases': 'The worst cases',
    'classes': 'By class and by size',
}


def write_analysis(
    models: Sequence[Model],
    truth: AnnotatedSet,
    folder: Path,
    command: str,
    num_cases: int = 4,
) -> list[Summary]:
    """Write all results of some detectors.

    Args:
        models: Tables of the detectors, over the same images.
        truth: The annotations of those images.
        folder: Folder for ``report.html``, ``summary.json``, ``tables/*.csv`` and
            ``figures/*.svg`` and ``.png``.
        command: Command that made the analysis.
        num_cases: Number of worst cases per detector.

    Returns:
        The results of each detector.
    """
    summaries = [Summary(model, truth) for model in models]
    sections = figures.all_charts(summaries)
    drawn = {}
    for chart in (chart for of_section in sections.values() for chart in of_section):
        svg = charts.save(chart, folder / 'figures')
        drawn[chart.key] = charts.inline_svg(chart.key, svg)
        write_csv(folder / 'tables' / f'{chart.key}.csv', *chart.table())
    by_class, by_size = tables.class_table(summaries), tables.size_table(summaries)
    write_csv(folder / 'tables/classes.csv', *by_class)
    write_csv(folder / 'tables/sizes.csv', *by_size)
    numbers = {
        s.model.name: {**_plain(s.scalars), 'oracles': _plain(s.oracles)}
        for s in summaries
    }
    atomic.write(folder / 'summary.json', json.dumps(numbers, indent=1).encode())
    page = _page(
        summaries,
        charts=sections,
        drawn=drawn,
        by_class=by_class,
        by_size=by_size,
        cases=cases.drawn_cases(summaries, num_cases),
        command=command,
    )
    atomic.write(folder / 'report.html', page.encode())
    return summaries


def _page(summaries: list[Summary], **values: Any) -> str:
    """Return the page: one file that needs no network and no other file."""
    names = [s.model.name for s in summaries]
    missing = {section for section, found in values['charts'].items() if not found}
    if not any(s.model.objects for s in summaries):
        missing.add('cases')
    page = importlib.resources.files(__package__) / 'page.html'
    environment = jinja2.Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.from_string(page.read_text(encoding='utf-8')).render(
        title=' and '.join(names) if len(names) < 4 else f'{len(names)} models',
        titles={key: text for key, text in TITLES.items() if key not in missing},
        names=names,
        blind=[s.model.name for s in summaries if not s.model.num_stages],
        light=charts.LIGHT,
        dark=charts.DARK,
        number=charts.number,
        num_images=len(summaries[0].model.image_ids),
        num_objects=summaries[0].matched.num_objects.sum(),
        overview=tables.overview(summaries),
        columns=[i for i in range(len(summaries)) for _ in range(tables.PER_MODEL)],
        facts=_facts(),
        **values,
    )


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence]) -> None:
    """Write a table as CSV: floats with four decimals, dashes and NaN as nothing."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator='\n')
    writer.writerow(header)
    for row in rows:
        cells = [f'{v:.4f}' if isinstance(v, float) else v for v in row]
        writer.writerow(['' if c in ('nan', '–') else c for c in cells])
    atomic.write(path, out.getvalue().encode())


def _facts() -> str:
    """Return the versions that the numbers were computed with."""
    # Of the modules, since mmdet may come from a fork of another name.
    names = ('mmdet_consistent', 'mmdet', 'torch', 'numpy')
    versions = [f'{n} {importlib.import_module(n).__version__}' for n in names]
    return (
        f'Python {platform.python_version()}, {", ".join(versions)}; COCO evaluation '
        f'by {coco_eval.default_backend()}.'
    )


def _plain(values: Mapping[str, float]) -> dict[str, Optional[float]]:
    """Replace NaN, which JSON does not have, by None."""
    return {n: None if np.isnan(value) else value for n, value in values.items()}
