"""The head loss at earlier revisions, to see what each change gained.

The package as it was is unpacked and measured by this benchmark as it is, in a process
of its own, against mmdet's head in the same process. This works for revisions whose
package has today's layout (``utils/timing.py``, ``utils/tables.py``, ``additions/``);
figures of older ones stay in the CSV file, but cannot be measured again.
"""

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from mmdet_consistent.utils import atomic
from tools.dev import ROOT

from .cases import OURS, REFERENCE
from .results import MEMORY, read_csv

COMMAND = (
    *(sys.executable, '-m', 'tools.dev.benchmark', '--workload', 'head_loss'),
    *('--device', 'cpu', '--contenders', REFERENCE, OURS),
    *('--warmup', '2', '--seconds', '10', '--out-dir', '.'),
)


def _git(*arguments: str) -> bytes:
    result = subprocess.run(['git', *arguments], cwd=ROOT, capture_output=True)
    if result.returncode != 0:
        raise ValueError(f'git {" ".join(arguments)}: {result.stderr.decode().strip()}')
    return result.stdout


def measure_revision(revision: str) -> dict:
    """Measure RetinaNet's head loss with the package as it was.

    Args:
        revision: Any name of a commit that git understands.

    Returns:
        Short hash and subject of the commit, and the consistent head's ratios to
        mmdet's: ``forward``, ``backward``, ``total`` and ``memory``.

    Raises:
        ValueError: If git does not know the revision.
        RuntimeError: If the measurement fails. The message contains its output.
    """
    log = _git('log', '-1', '--format=%h%n%s', revision, '--')
    short, subject = log.decode().splitlines()
    with tempfile.TemporaryDirectory() as folder:
        archive = _git('archive', revision, 'mmdet_consistent')
        subprocess.run(['tar', '-x', '-C', folder], input=archive, check=True)
        # Python looks for modules in the current folder first.
        (Path(folder) / 'tools').symlink_to(ROOT / 'tools')
        result = subprocess.run(COMMAND, cwd=folder, capture_output=True, text=True)
        if result.returncode != 0:
            raise RuntimeError(
                f'{short} could not be measured:\n{result.stderr[-2000:]}'
            )
        rows, _ = read_csv(Path(folder) / 'speed.csv')
    ratio = rows[rows['contender'] == OURS].set_index('part')['ratio']
    found = ratio[['forward', 'backward', 'total', MEMORY]].rename({MEMORY: 'memory'})
    return dict(revision=short, subject=subject, **found.to_dict())


def write_history(path: Path, revisions: Sequence[dict]) -> pd.DataFrame:
    """Add revisions to a CSV file, or replace them there; return the whole table."""
    table = pd.DataFrame(revisions)
    if path.is_file():
        table = pd.concat([pd.read_csv(path), table])
    table = table.drop_duplicates('revision', keep='last')
    atomic.write(path, table.to_csv(index=False, float_format='%.4g').encode())
    return table
