"""A study's pages in Markdown, and the CSV files that pages can be made from."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Optional

from mmdet_consistent.utils.tables import markdown_table
from tools.dev import ROOT

from .numbers import GROUPS, METRICS, Estimate, Row, summarise
from .runs import CONFIGS, Job, job_config
from .tables import TABLES, Table

# Row name to seed to a run's ``metrics`` and ``positives``.
Runs = Mapping[str, Mapping[int, dict]]


@dataclass
class Origin:
    """Origin of a page's figures, kept in its CSV file.

    Attributes:
        command: The command that trained and evaluated.
        table: Name of the table.
        data: Name of the data set.
        split: ``'val'`` or ``'test'``.
        epochs: Number of epochs if it was not the config's, else empty.
    """

    command: str
    table: str
    data: str
    split: str
    epochs: str = ''

    @property
    def stem(self) -> str:
        """Name of the page, the CSV file and the plot, without suffix."""
        suffix = '_val' if self.split == 'val' else ''
        return f'{self.table}_{self.data}{suffix}'

    @property
    def title(self) -> str:
        """Title of the page."""
        return f'{TABLES[self.table].title} ({self.data}, {self.split} split)'


def signed(estimate: Optional[Estimate]) -> str:
    """Format a difference and its interval, as ``+1.2 ± 0.4``."""
    if estimate is None:
        return '–'
    if estimate.half_width is None:
        return f'{estimate.mean:+.1f}'
    return f'{estimate.mean:+.1f} ± {estimate.half_width:.1f}'


def metrics_of(rows: Sequence[Row]) -> dict[str, str]:
    """Return the metrics that the rows have, by name: title in a table."""
    groups = [name for name in GROUPS if all(name in row.values for row in rows)]
    return {name: name.replace('_', ' ') for name in (*METRICS, *groups)}


def values_table(rows: Sequence[Row]) -> str:
    """Render the mean of every metric, the difference of AP, positives and seeds."""
    metrics = metrics_of(rows)
    header = ['', *metrics.values()]
    header += ['ΔAP (95 %)', 'positives per image, by stage', 'seeds']
    lines = [
        [
            row.name,
            *(f'{row.values[metric].mean:.1f}' for metric in metrics),
            signed(row.differences.get('AP')),
            ', '.join(f'{p:.0f}' for p in row.positives) or '–',
            str(len(row.seeds)),
        ]
        for row in rows
    ]
    return markdown_table(header, lines)


def differences_table(rows: Sequence[Row]) -> str:
    """Render every metric's paired difference to the baseline, with its interval."""
    metrics = metrics_of(rows)
    header = ['', *(f'Δ{title}' for title in metrics.values())]
    lines = [
        [row.name, *(signed(row.differences.get(metric)) for metric in metrics)]
        for row in rows
        if row.differences
    ]
    return markdown_table(header, lines)


def paper_table(rows: Sequence[Row]) -> str:
    """Render the paper's figures, and its gain beside the one measured here."""
    metrics = [m for m in METRICS if any(m in row.paper for row in rows)]
    header = ['', *metrics, 'ΔAP in the paper', 'ΔAP here']
    lines = []
    for row in rows:
        if not row.paper:
            continue
        gain = '–'
        if rows[0].paper and row is not rows[0]:
            gain = f'{row.paper["AP"] - rows[0].paper["AP"]:+.1f}'
        figures = (f'{row.paper[m]:.1f}' if m in row.paper else '–' for m in metrics)
        lines.append([row.name, *figures, gain, signed(row.differences.get('AP'))])
    return markdown_table(header, lines)


def paper_figures(table: Table) -> dict[str, dict]:
    """Return the paper's figures by row name."""
    rows = json.loads((ROOT / 'configs/paper_tables.json').read_text())
    known = {(row['table'], row['row']): row['metrics'] for row in rows}
    return {name: known[key] for name, key in table.paper.items()}


def schedule(model: str, data: str, split: str, epochs: Optional[int] = None) -> str:
    """Describe in a paragraph what was trained."""
    cfg = job_config(Job(model, data, 'baseline', 0, split, epochs, Path()))
    names = f'`tools/dev/study/configs/{model}_{data}.py`'
    if not (CONFIGS / f'{model}_{data}.py').is_file():
        names = f'`_base_{model}.py` and `_base_{data}.py` of `tools/dev/study/configs`'
    scratch = start = 'from scratch'
    if cfg.model.backbone.get('init_cfg'):
        scratch = 'on a frozen backbone with ImageNet weights'
    if cfg.pretraining_epochs:
        start = (
            f'from one baseline per seed, which was itself trained {scratch} for '
            f'{cfg.pretraining_epochs} epochs'
        )
    return (
        f'{names}: a small model, trained for '
        f'{cfg.train_cfg.max_epochs} epochs {start}, on one CPU core per run; all rows '
        f'at equal settings. AP in per cent on the {split} split, means over the seeds.'
    )


def rows_of(origin: Origin, runs: Runs) -> list[Row]:
    """Summarise a table's runs; the first row is the baseline."""
    return summarise(runs, next(iter(runs)), paper_figures(TABLES[origin.table]))


def page_from_csv(path: Path) -> str:
    """Render the page of a table from its CSV file, without the runs' folders."""
    origin, runs = read_csv(path)
    rows = rows_of(origin, runs)
    epochs = int(origin.epochs) if origin.epochs else None
    model = TABLES[origin.table].model
    parts = [
        f'# {origin.title}',
        f'Generated by `{origin.command}`.',
        schedule(model, origin.data, origin.split, epochs),
        values_table(rows),
    ]
    if any(row.differences for row in rows):
        parts += [
            f'Paired differences to `{rows[0].name}` (same seed: same initial weights '
            'of what both have, same order of images, same flips), mean and 95 % '
            't-interval over the seeds that a row shares with it:',
            differences_table(rows),
        ]
    parts.append(f'![mean AP, and paired differences by IoU]({origin.stem}.png)')
    if any(row.paper for row in rows):
        parts += [
            "**The paper's figures** (COCO val2017, full-size models; *not run here*):",
            paper_table(rows),
        ]
    return '\n\n'.join(parts) + '\n'


def boxes_page(
    title: str,
    command: str,
    note: str,
    facts: Mapping[str, Mapping[str, float]],
    rows: Sequence[Row],
) -> str:
    """Render the page on where anchors end up.

    Args:
        title: Heading.
        command: The command that made it.
        note: A paragraph on what was trained and measured.
        facts: Detector to fact to a mean over the seeds.
        rows: AP of a detector's first and last boxes; differences are those to the
            first row.
    """
    names = list(next(iter(facts.values())))
    measured = markdown_table(
        ['', *facts],
        [[name, *(f'{facts[row][name]:.1f}' for row in facts)] for name in names],
    )
    parts = [
        f'# {title}',
        f'Generated by `{command}`.',
        note,
        "First positives: anchors that are positive for the base detector's assigner. "
        'Second positives: anchors with an IoU of at least 0.6 once refined. IoUs are '
        'times 100.',
        measured,
        'AP of the boxes after the first step alone, with the same scores, and of the '
        'final ones:',
        values_table(rows),
        differences_table(rows),
    ]
    return '\n\n'.join(parts) + '\n'


def write_csv(path: Path, origin: Origin, runs: Runs) -> None:
    """Write one line per run (row, seed, metrics, positives by stage), and the origin.

    The origin precedes the lines as comments.
    """
    everything = [run for by_seed in runs.values() for run in by_seed.values()]
    metrics = list(dict.fromkeys(m for run in everything for m in run['metrics']))
    stages = max(len(run['positives']) for run in everything)
    out = io.StringIO()
    for field in fields(origin):
        out.write(f'# {field.name}: {getattr(origin, field.name)}\n')
    writer = csv.writer(out, lineterminator='\n')
    writer.writerow(['row', 'seed', *metrics, *(f'pos_s{k}' for k in range(stages))])
    for name, by_seed in runs.items():
        for seed, run in sorted(by_seed.items()):
            positives = [f'{value:.1f}' for value in run['positives']]
            positives += [''] * (stages - len(positives))
            figures = (f'{run["metrics"][m]:.3f}' for m in metrics)
            writer.writerow([name, seed, *figures, *positives])
    path.write_text(out.getvalue(), encoding='utf-8')


def read_csv(path: Path) -> tuple[Origin, Runs]:
    """Read the origin and the runs that :func:`write_csv` wrote.

    Raises:
        ValueError: If the file does not state its origin.
    """
    lines = path.read_text(encoding='utf-8').splitlines()
    comments = [line[2:].split(':', 1) for line in lines if line.startswith('# ')]
    known = {name: value.strip() for name, value in comments}
    try:
        origin = Origin(**known)
    except TypeError as error:
        raise ValueError(
            f'{path} was not written by tools/dev/study: {error}'
        ) from None
    runs: dict[str, dict[int, dict]] = {}
    for line in csv.DictReader(lines[len(comments) :]):
        positives = [v for k, v in line.items() if k.startswith('pos_s') and v]
        run = dict(
            metrics={k: float(v) for k, v in line.items() if k.startswith('AP')},
            positives=[float(value) for value in positives],
        )
        runs.setdefault(line['row'], {})[int(line['seed'])] = run
    return origin, runs
