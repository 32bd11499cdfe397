"""The head loss at earlier revisions: what each change bought.

An earlier package is unpacked beside this one and measured by *this* benchmark,
in a process of its own, each time against mmdet's head in that same process.
"""

import csv
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

PACKAGE = 'mmdet_consistent'
ROOT = Path(__file__).resolve().parents[3]
MEASURE = (
    'import sys; from tools.dev.benchmark.history import measure_here; '
    'measure_here(*sys.argv[1:])'
)


class Revision(NamedTuple):
    """The consistent head's ratios to mmdet's at one revision.

    Attributes:
        revision: Short hash.
        subject: First line of the commit message.
        forward: Ratio of the forward pass's time.
        backward: Of the backward pass's.
        total: Of both.
        memory: Of the peak memory.
    """

    revision: str
    subject: str
    forward: float
    backward: float
    total: float
    memory: float


def _git(*arguments: str) -> bytes:
    result = subprocess.run(['git', *arguments], cwd=ROOT, capture_output=True)
    if result.returncode != 0:
        raise ValueError(f'git {" ".join(arguments)}: {result.stderr.decode().strip()}')
    return result.stdout


def measure_revision(revision: str) -> Revision:
    """Measure RetinaNet's head loss with the package as it was.

    Args:
        revision: Anything that git takes for a commit.

    Raises:
        ValueError: If git does not know the revision.
        RuntimeError: If the measurement fails; says with what.
    """
    short, subject = (
        _git('log', '-1', '--format=%h%n%s', revision, '--').decode().splitlines()
    )
    with tempfile.TemporaryDirectory() as folder:
        archive = _git('archive', revision, PACKAGE)
        subprocess.run(['tar', '-x', '-C', folder], input=archive, check=True)
        output = Path(folder) / 'out.csv'
        result = subprocess.run(
            [sys.executable, '-c', MEASURE, folder, str(output)],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        if result.returncode != 0:
            raise RuntimeError(
                f'{short} could not be measured:\n{result.stderr[-2000:]}'
            )
        with open(output, newline='') as file:
            found = {row['part']: float(row['ratio']) for row in csv.DictReader(file)}
    return Revision(
        short,
        subject,
        found['forward'],
        found['backward'],
        found['total'],
        found['peak_memory'],
    )


def write_history(path: Path, revisions: Sequence[Revision]) -> None:
    """Write a CSV file, one line a revision."""
    partial = path.with_suffix('.partial')
    with open(partial, 'w', newline='') as file:
        writer = csv.writer(file, lineterminator='\n')
        writer.writerow(Revision._fields)
        for revision in revisions:
            writer.writerow([*revision[:2], *(f'{x:.4g}' for x in revision[2:])])
    os.replace(partial, path)


def read_history(path: Path) -> list[Revision]:
    """Read what :func:`write_history` wrote."""
    with open(path, newline='') as file:
        rows = list(csv.reader(file))[1:]
    return [Revision(*row[:2], *map(float, row[2:])) for row in rows]


def measure_here(folder: str, output: str) -> None:
    """In the process of its own: the old package, but this benchmark."""
    sys.path.insert(0, folder)
    from .cases import Case, Task
    from .measure import measure

    task = Task(Case(), ('mmdet', 'consistent'))
    rows = measure(task, warmup=2, repetitions=15, seconds=10)
    with open(output, 'w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(['part', 'ratio'])
        for row in rows:
            if row.contender == 'consistent':
                writer.writerow([row.part, row.ratio.median])
