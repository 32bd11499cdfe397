"""Show how well a detector's scores and boxes agree: any detectors, on one page.

Runs each detector over the test split of its config, and writes figures, tables and
one self-contained HTML page. An interrupted run resumes with the same command.

Examples:
    python tools/analyze.py base.py base.pth ours.py ours.pth --out work_dirs/page
    python tools/analyze.py --results dets.json --ann val.json --out work_dirs/page
"""

import argparse
import logging
import re
import shlex
import sys
import warnings
from pathlib import Path
from typing import Optional

import torch
from mmengine.config import DictAction
from mmengine.logging import MMLogger

from mmdet_consistent.analysis.annotations import AnnotatedSet
from mmdet_consistent.analysis.coco_eval import read_results, write_results
from mmdet_consistent.analysis.columns import select_images
from mmdet_consistent.analysis.detector import collect_detector
from mmdet_consistent.analysis.report import write_analysis
from mmdet_consistent.analysis.summary import Model, Summary
from mmdet_consistent.engine import make_safe
from mmdet_consistent.engine.checkpoint import is_there
from mmdet_consistent.engine.launch import load_config
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
    args = parser.parse_args()
    if len(args.pairs) % 2:
        parser.error(f'give pairs of CONFIG CHECKPOINT, got {len(args.pairs)} paths')
    if not args.pairs and not args.results:
        parser.error('give CONFIG CHECKPOINT, or --results with --ann')
    if args.results and not args.pairs and not args.ann:
        parser.error('--results needs --ann, the COCO annotation file')
    for path in [*args.pairs, *args.results, *filter(None, [args.ann])]:
        if not is_there(path):
            parser.error(f'no such file: {path}')
    if args.limit is not None and args.limit < 1:
        parser.error(f'--limit must be at least 1, got {args.limit}')
    args.device = args.device or ('cuda' if torch.cuda.is_available() else 'cpu')
    sources = [*args.pairs[::2], *args.results]
    args.names = args.names or [Path(source).stem for source in sources]
    if len(args.names) != len(sources):
        parser.error(f'--names: {len(sources)} needed, got {len(args.names)}')
    if len(set(args.names)) != len(args.names):
        parser.error(f'names must differ, got {args.names}; give --names')
    return args


def collect(args: argparse.Namespace) -> tuple[list[Model], AnnotatedSet]:
    """Run the detectors and read the result files."""
    models: list[Model] = []
    truth = None
    names = iter(args.names)
    for config, checkpoint in zip(args.pairs[::2], args.pairs[1::2]):
        name = next(names)
        folder = args.out / 'data' / re.sub(r'[^\w.-]+', '_', name)
        store, of_model = collect_detector(
            name,
            load_config(config, args.cfg_options),
            checkpoint,
            folder,
            limit=args.limit,
            num_anchors=args.anchors,
            device=args.device,
            fresh=args.fresh,
        )
        model = Model.from_store(name, store)
        models.append(model)
        truth = truth or of_model
        same = truth.classes == of_model.classes
        if not same or model.image_ids != models[0].image_ids:
            raise ValueError(
                f'{config}: its test split has other images or classes than that of '
                f'{args.pairs[0]}; detectors are compared over the same images'
            )
        write_results(folder / 'detections.json', model.detections, truth)
    truth = truth or AnnotatedSet.from_file(args.ann)
    image_ids = models[0].image_ids if models else truth.order[: args.limit]
    for path in args.results:
        detections = select_images(read_results(path, truth), image_ids)
        models.append(Model(next(names), image_ids, detections))
    return models, truth


def run(args: argparse.Namespace, command: str) -> list[Summary]:
    """Collect, write the page and the files beside it, and print the main numbers.

    Args:
        args: Arguments from :func:`parse_args`.
        command: The command line, quoted on the page.

    Returns:
        The results of each detector.
    """
    make_safe()
    # Messages of the libraries would break the progress bar.
    warnings.filterwarnings('ignore')
    MMLogger.get_instance('mmengine', log_level='ERROR').setLevel(logging.ERROR)
    try:
        models, truth = collect(args)
    except KeyboardInterrupt:
        print('\nInterrupted; the same command resumes.')
        sys.exit(130)
    except (UserError, ValueError) as error:
        sys.exit(f'analyze: error: {error}')
    print('computing numbers and drawing figures', flush=True)
    summaries = write_analysis(models, truth, args.out, command, args.cases)
    for summary in summaries:
        values = summary.scalars
        print(
            f'{summary.model.name}: AP {100 * values["AP"]:.1f}, rank correlation '
            f'of score and IoU {values["rank correlation, IoU >= 0.5"]:.3f}, '
            f'LaECE {100 * values["LaECE"]:.1f}'
        )
    print(f'page: {args.out / "report.html"}')
    return summaries


def main() -> None:
    run(parse_args(), shlex.join(['python', 'tools/analyze.py', *sys.argv[1:]]))


if __name__ == '__main__':
    main()
