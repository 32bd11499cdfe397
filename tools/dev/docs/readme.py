"""Put the study's main figures into README.md, from docs/results/*.csv.

Example:
    python -m tools.dev.docs.readme            # write them
    python -m tools.dev.docs.readme --check    # fail if they are out of date
"""

import csv
from pathlib import Path

from mmdet_consistent.utils.tables import markdown_table
from tools.dev.study.numbers import summarise
from tools.dev.study.report import signed

from .generated import parse_args, with_block, write_or_check

ROOT = Path(__file__).resolve().parents[3]
README = ROOT / 'README.md'
# (what the README calls it, the study's table, its row): gains first.
TABLES = (
    ('RetinaNet, crowds of shapes', 'table1_occlusion', 'consistent'),
    ('… with two additions', 'additions_occlusion', 'aligned_confident'),
    ('SSD, crowds of shapes', 'table5_occlusion', 'consistent'),
    ('RetinaNet, blood cells', 'table1_bccd', 'consistent'),
    ('… with two additions', 'additions_bccd', 'aligned_confident'),
    ('SSD, blood cells', 'table5_bccd', 'consistent'),
)


def read_runs(path: Path) -> dict:
    """Row to seed to run, of one of the study's CSV files."""
    runs = {}
    with open(path, encoding='utf-8', newline='') as file:
        for line in csv.DictReader(file):
            metrics = {m: float(line[m]) for m in ('AP', 'AP50', 'AP75')}
            run = dict(metrics=metrics, positives=[])
            runs.setdefault(line['row'], {})[int(line['seed'])] = run
    return runs


def table() -> str:
    """Baseline and consistent of each table, with the paired differences."""
    header = ['', 'baseline', 'consistent', 'ΔAP', 'ΔAP50', 'ΔAP75', 'seeds']
    lines = []
    for title, stem, row in TABLES:
        runs = read_runs(ROOT / f'docs/results/{stem}.csv')
        baseline, consistent = summarise(
            {name: runs[name] for name in ('baseline', row)}, 'baseline'
        )
        lines.append(
            [
                f'[{title}](docs/results/{stem}.md)',
                *(f'{x.values["AP"].mean:.1f}' for x in (baseline, consistent)),
                *(signed(consistent.differences[m]) for m in ('AP', 'AP50', 'AP75')),
                str(consistent.differences['AP'].count),
            ]
        )
    return markdown_table(header, lines)


def main() -> None:
    args = parse_args(__doc__)
    refusal = 'README.md is out of date: run python -m tools.dev.docs.readme'
    write_or_check(README, with_block(README, 'study', table()), args.check, refusal)


if __name__ == '__main__':
    main()
