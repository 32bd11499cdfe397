"""Write the page, figures, tables and numbers of an analysis into one folder."""

import csv
import importlib
import io
import itertools
import json
import platform
from collections.abc import Iterable, Sequence
from pathlib import Path

import jinja2
from tqdm import tqdm

from ..utils import atomic
from . import cases, charts, coco_eval, figures, tables
from .annotations import AnnotatedSet
from .summary import Model, Summary

SHOWN_CLASSES = 20  # in the page's charts by class and confusion matrices


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
    for chart in itertools.chain(*sections.values()):
        write_csv(folder / 'tables' / f'{chart.key}.csv', *chart.table())
    sections['classes'] = sections['classes'][: 2 * SHOWN_CLASSES]  # two charts each
    drawn = {}
    shown = list(itertools.chain(*sections.values()))
    for chart in tqdm(shown, 'figures', unit='figure', ncols=78):
        svg = charts.save(chart, folder / 'figures')
        drawn[chart.key] = charts.inline_svg(chart.key, svg)
    by_class, by_size = tables.class_table(summaries), tables.size_table(summaries)
    thresholds = tables.threshold_table(summaries)
    write_csv(folder / 'tables/classes.csv', *by_class)
    write_csv(folder / 'tables/sizes.csv', *by_size)
    write_csv(folder / 'tables/thresholds.csv', *thresholds)
    for i, summary in enumerate(summaries):
        confusion = tables.confusion_table(summary)
        write_csv(folder / f'tables/confusion-m{i}.csv', *confusion)
    numbers = {s.model.name: {**s.scalars, 'oracles': s.oracles} for s in summaries}
    # JSON has no NaN.
    plain = json.loads(json.dumps(numbers), parse_constant=lambda _: None)
    atomic.write(folder / 'summary.json', json.dumps(plain, indent=1).encode())
    # Of the modules, since mmdet may come from a fork of another name.
    names = ('mmdet_consistent', 'mmdet', 'torch', 'numpy')
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    page = environment.get_template('page.html').render(
        summaries=summaries,
        light=charts.LIGHT,
        dark=charts.DARK,
        number=charts.number,
        overview=tables.overview(summaries),
        charts=sections,
        drawn=drawn,
        by_class=by_class,
        by_size=by_size,
        thresholds=thresholds,
        confusions=[tables.confusion_table(s, SHOWN_CLASSES) for s in summaries],
        cases=cases.drawn_cases(summaries, num_cases),
        command=command,
        python=platform.python_version(),
        versions=[f'{n} {importlib.import_module(n).__version__}' for n in names],
        backend=coco_eval.default_backend(),
    )
    atomic.write(folder / 'report.html', page.encode())
    return summaries


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence]) -> None:
    """Write a table as CSV: floats with four decimals, dashes and NaN as nothing."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator='\n')
    writer.writerow(header)
    for row in rows:
        cells = [f'{v:.4f}' if isinstance(v, float) else v for v in row]
        writer.writerow(['' if c in ('nan', '–') else c for c in cells])
    atomic.write(path, out.getvalue().encode())
