"""Follow docs/fine_tuning.md on blood cells and record the figures.

The page's own config files and commands are run for every seed, with the quickstart's
RetinaNet as the baseline. Started again, it continues where it stopped.

Example:
    python -m tools.dev.study.fine_tuning --seeds 0 1 2    # about 20 minutes
"""

import argparse
import itertools
import json
import os
import platform
import re
import shlex
import statistics
import subprocess
import sys
import textwrap
from pathlib import Path

import torch
from mmengine.config import Config

from mmdet_consistent.utils import atomic
from mmdet_consistent.utils.tables import markdown_table
from tools.dev import ROOT

from .numbers import summarise
from .report import signed

PAGE = ROOT / 'docs/fine_tuning.md'
RESULTS = ROOT / 'docs/results/fine_tuning.json'
BASELINE = 'my_retinanet'
TRAINED_ON = 'my_retinanet_on'
CONSISTENT = 'my_con_retinanet'
FASTER = 'my_con_retinanet_10x'
ALIGNED = 'my_aligned_retinanet'
METRICS = ('AP', 'AP50', 'AP75')
NAMES = {
    BASELINE: 'the baseline',
    TRAINED_ON: 'trained on',
    CONSISTENT: 'consistent',
    FASTER: 'consistent, 10×',
    ALIGNED: 'aligned, 10×',
}
COMMAND = ('python', '-m', 'tools.dev.study.fine_tuning')
ONLY_IN_PART = 'fits this model only in part'
CHANGED = 'docs/fine_tuning.md has changed: this program no longer finds '


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/fine_tuning'))
    return parser.parse_args()


def code(language: str) -> list:
    """Return the page's code blocks in a language."""
    blocks = re.findall(
        rf'^( *)```{language}\n(.*?)^\1```', PAGE.read_text(encoding='utf-8'),
        re.DOTALL | re.MULTILINE,
    )  # fmt: skip
    return [textwrap.dedent(text) for _, text in blocks]


def config_files() -> dict:
    """Return the config files that the page shows: name to text."""
    files = {}
    for text in code('python'):
        name = re.match(r'# (\w+)\.py\n', text)
        if name:
            files[name[1]] = text
    wanted = [name for name in NAMES if name != BASELINE]
    if list(files) != wanted:
        sys.exit(f'{CHANGED}the configs {", ".join(wanted)}')
    return files


def commands() -> tuple:
    """Return the page's trainings and its comparison, as lists of words."""
    lines = '\n'.join(code('bash')).replace('\\\n', ' ').splitlines()
    words = [shlex.split(line, comments=True) for line in lines]
    trainings = [w for w in words if w[3:4] == ['train']]
    comparisons = [w for w in words if w[3:4] == ['compare']]
    if len(trainings) != len(NAMES) - 1 or len(comparisons) != 1:
        sys.exit(f'{CHANGED}a training of each config and one comparison')
    return trainings, comparisons[0]


def run(words: list, folder: Path) -> None:
    """Run one of the page's commands in a folder, on one CPU core."""
    print(f'{folder.name}: {shlex.join(words)}', flush=True)
    assert words[0] == 'python', words
    done = subprocess.run(
        [sys.executable, *words[1:]],
        cwd=folder,
        env=dict(
            os.environ,
            OMP_NUM_THREADS='1',
            PYTHONWARNINGS='ignore',
            PYTHONPATH=os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')]),
        ),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        sys.exit(f'{done.stdout[-3000:]}\n{shlex.join(words)} failed, see above')


def train(words: list, folder: Path) -> None:
    """Run a training of the page, unless it is complete."""
    name = Path(words[4]).stem
    epochs = Config.fromfile(folder / words[4]).train_cfg.max_epochs
    if not (folder / f'work_dirs/{name}/epoch_{epochs}.pth').is_file():
        run(words, folder)


def training_facts(folder: Path) -> dict:
    """Read a training's log: seconds of its steps, and weights missing at its start."""
    log = max(folder.glob('*/*.log')).read_text(encoding='utf-8')
    missing = []
    if ONLY_IN_PART in log:
        rows = log.split(ONLY_IN_PART, 1)[1].splitlines()[2:]
        for row in itertools.takewhile(lambda row: not row.startswith('20'), rows):
            found = re.fullmatch(r'(\S+) +missing +(.+)', row)
            if not found:
                sys.exit(f'{folder}: the log names more than missing weights: {row}')
            missing += [f'{found[1]}.{name}' for name in found[2].split(', ')]
    scalars = max(folder.glob('*/vis_data/scalars.json')).read_text()
    entries = [json.loads(line) for line in scalars.splitlines()]
    steps = [entry for entry in entries if 'loss' in entry]
    return dict(
        # The median of the windows: others may have used the machine for a while.
        seconds=steps[-1]['step'] * statistics.median(e['time'] for e in steps),
        missing=missing,
    )


def table_rows(text: str) -> dict:
    """Read a Markdown table: row name to column name to number."""
    lines = [line for line in text.splitlines() if line.startswith('|')]
    header, _, *rows = (
        [cell.strip() for cell in line.strip('|').split('|')] for line in lines
    )
    return {
        name: {column: float(cell) for column, cell in zip(header[1:], cells)}
        for name, *cells in rows
    }


def run_seed(seed: int, folder: Path) -> dict:
    """Run baseline, trainings and comparison of one seed."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / 'data').exists():
        (folder / 'data').symlink_to(ROOT / 'data')
    base = ROOT / 'configs/quickstart/retinanet_bccd.py'
    texts = {
        BASELINE: f'_base_ = {str(base)!r}\nrandomness = dict(seed={seed})\n',
        **config_files(),
    }
    for name, text in texts.items():
        path = folder / f'{name}.py'
        if path.is_file() and path.read_text(encoding='utf-8') != text:
            sys.exit(f'{path} is of another state of the page: remove {folder}')
        path.write_text(text, encoding='utf-8')
    trainings, comparison = commands()
    train(trainings[0][:4] + [f'{BASELINE}.py'], folder)
    # The order changes, so that none always has the quieter machine.
    for words in trainings if seed % 2 == 0 else trainings[::-1]:
        train(words, folder)
    if not (folder / 'compared.md').is_file():
        run([*comparison, '--out', 'compared.md'], folder)
    found = table_rows((folder / 'compared.md').read_text(encoding='utf-8'))
    result = {}
    for name in NAMES:
        facts = training_facts(folder / f'work_dirs/{name}')
        result[name] = dict(metrics={m: found[name][m] for m in METRICS}, **facts)
    return result


def text_of(results: dict) -> str:
    """Render the figures that the page shows.

    Args:
        results: ``command`` and ``machine``, and ``seeds``: seed to detector to
            ``metrics``, ``seconds`` and ``missing``.
    """
    seeds = results['seeds']
    runs = {
        name: {
            seed: dict(metrics=found[name]['metrics'], positives=[])
            for seed, found in seeds.items()
        }
        for name in NAMES
    }
    rows = [
        [
            NAMES[row.name],
            *(f'{row.values[metric].mean:.1f}' for metric in METRICS),
            *(signed(row.differences.get(metric)) for metric in METRICS),
        ]
        for row in summarise(runs, TRAINED_ON)
    ]
    differences = [f'Δ{metric}' for metric in METRICS]
    seconds = {
        name: statistics.median(found[name]['seconds'] for found in seeds.values())
        for name in (TRAINED_ON, CONSISTENT)
    }
    ratio = statistics.median(
        found[CONSISTENT]['seconds'] / found[TRAINED_ON]['seconds']
        for found in seeds.values()
    )
    missing = {
        tuple(found[name]['missing'])
        for found in seeds.values()
        for name in (CONSISTENT, FASTER, ALIGNED)
    }
    if len(missing) != 1 or any(f[TRAINED_ON]['missing'] for f in seeds.values()):
        sys.exit(f'the logs differ in the weights that the checkpoint lacks: {missing}')
    keys = ', '.join(f'`{key}`' for key in missing.pop())
    return (
        f'{markdown_table(["", *METRICS, *differences], rows)}\n\n'
        f'BCCD test split, means of {len(seeds)} seeds. Δ is the difference to the '
        'baseline trained on, paired by seed, with its 95 % t-interval. Fine-tuning '
        f'took {seconds[CONSISTENT]:.0f} s, training on {seconds[TRAINED_ON]:.0f} s '
        f'(medians of the seeds); the median of the ratios is {ratio:.2f}. According '
        f'to the log, the checkpoint lacks {keys}. {results["machine"]}. Generated by '
        f'`{results["command"]}`.'
    )


def render() -> str:
    """Render the block of the page from the stored results."""
    return text_of(json.loads(RESULTS.read_text(encoding='utf-8')))


def main() -> None:
    args = parse_args()
    seeds = {
        str(seed): run_seed(seed, ROOT / args.work_dir / f'seed{seed}')
        for seed in args.seeds
    }
    results = dict(
        command=shlex.join([*COMMAND, *sys.argv[1:]]),
        machine=f'One CPU core, Python {platform.python_version()}, torch '
        f'{torch.__version__}',
        seeds=seeds,
    )
    atomic.write(RESULTS, f'{json.dumps(results, indent=1)}\n'.encode())
    print(f'{render()}\n\nTo update the page: python -m tools.dev.docs')


if __name__ == '__main__':
    main()
