"""Show how well a detector's scores and boxes agree: any detectors, on one page.

Runs each detector over the test split of its config, and writes figures, tables and
one self-contained HTML page. An interrupted run resumes with the same command.

Examples:
    python tools/analyze.py base.py base.pth ours.py ours.pth --out work_dirs/page
    python tools/analyze.py --results dets.json --ann val.json --out work_dirs/page
"""

import argparse
import shlex
import sys
from pathlib import Path
from typing import Optional

from mmengine.config import DictAction

from mmdet_consistent.analysis.analyze import Analysis, analyze
from mmdet_consistent.utils.errors import UserError


def parse_args(description: Optional[str] = __doc__) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add('pairs', nargs='*', metavar='CONFIG CHECKPOINT', help='one pair per detector')
    add('--out', type=Path, required=True, help='folder for the results')
    add('--results', nargs='+', type=Path, default=[], help='COCO result files')
    add('--ann', type=Path, help='COCO annotation file, for --results')
    add('--names', nargs='+', help='names of the detectors; default: file names')
    add('--limit', type=int, help='use the first N images only')
    add(
        '--anchors',
        type=int,
        default=1_000_000,
        help='anchors to sample over all images (default: %(default)s)',
    )
    add('--cases', type=int, default=4, help='worst cases per detector (default: 4)')
    add('--device', help='default: cuda if available, else cpu')
    add('--fresh', action='store_true', help='collect anew, even what is in --out')
    add('--cfg-options', nargs='+', action=DictAction, help='key=value overrides')
    return parser.parse_args()


def run(args: argparse.Namespace, command: str) -> Analysis:
    """Analyse, and print the main numbers.

    Args:
        args: Arguments from :func:`parse_args`.
        command: The command line, quoted on the page.
    """
    options = vars(args)
    try:
        done = analyze(*options.pop('pairs'), command=command, **options)
    except KeyboardInterrupt:
        print('\nInterrupted; the same command resumes.')
        sys.exit(130)
    except (UserError, ValueError) as error:
        sys.exit(f'analyze: error: {error}')
    for name, values in done.numbers.items():
        print(
            f'{name}: AP {100 * values["AP"]:.1f}, rank correlation of score and IoU '
            f'{values["rank correlation, IoU >= 0.5"]:.3f}, '
            f'LaECE {100 * values["LaECE"]:.1f}, F1 {100 * values["F1"]:.1f} at a '
            f'score of {values["F1 threshold"]:.3f}'
        )
    print(f'page: {done.page}')
    return done


def main() -> None:
    run(parse_args(), shlex.join(['python', 'tools/analyze.py', *sys.argv[1:]]))


if __name__ == '__main__':
    main()
