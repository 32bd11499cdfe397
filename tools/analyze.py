"""See the misalignment of score and place: any detectors, as one page.

Runs each detector over the test split of its config, and writes figures, tables
and one self-contained HTML page. Started again, it goes on where it stopped.

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

import torch
from mmengine.config import DictAction
from mmengine.logging import MMLogger

from mmdet_consistent.analysis.detector import collect_detector, read_results
from mmdet_consistent.analysis.docs import write_docs
from mmdet_consistent.analysis.ground_truth import GroundTruth
from mmdet_consistent.analysis.output import write_analysis, write_coco_results
from mmdet_consistent.analysis.summary import Model
from mmdet_consistent.engine import make_safe
from mmdet_consistent.engine.launch import load_config


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'pairs', nargs='*', metavar='CONFIG CHECKPOINT', help='one pair a detector'
    )
    parser.add_argument('--out', type=Path, required=True, help='folder to write')
    parser.add_argument(
        '--results', nargs='+', type=Path, default=[], help='COCO result files'
    )
    parser.add_argument('--ann', type=Path, help='COCO annotations, for --results')
    parser.add_argument('--names', nargs='+', help='what to call the detectors')
    parser.add_argument('--limit', type=int, help='look at the first N images')
    parser.add_argument(
        '--anchors',
        type=int,
        default=1_000_000,
        help='anchors to keep in all',
    )
    parser.add_argument('--cases', type=int, default=4, help='worst cases of each')
    parser.add_argument('--device', help='default: cuda if there is one, else cpu')
    group = parser.add_mutually_exclusive_group()
    group.add_argument('--fresh', action='store_true', help='forget what is there')
    group.add_argument(
        '--resume', action='store_true', help='go on from what is there (the default)'
    )
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, help='key=value overrides'
    )
    parser.add_argument(
        '--write-docs', type=Path, metavar='PAGE', help='put the best into PAGE.md'
    )
    args = parser.parse_args()
    if len(args.pairs) % 2:
        parser.error(f'give pairs of CONFIG CHECKPOINT, got {len(args.pairs)} paths')
    if not args.pairs and not args.results:
        parser.error('give CONFIG CHECKPOINT, or --results with --ann')
    if args.results and not args.pairs and not args.ann:
        parser.error('--results needs --ann, the COCO annotation file')
    for path in [*args.pairs, *args.results, *([args.ann] if args.ann else [])]:
        if not Path(path).is_file():
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


def collect(args: argparse.Namespace) -> tuple[list[Model], GroundTruth]:
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
            Path(checkpoint),
            folder,
            limit=args.limit,
            num_anchors=args.anchors,
            device=args.device,
            fresh=args.fresh,
        )
        model = Model.from_store(name, store)
        if truth is None:
            truth = of_model
        same = truth.classes == of_model.classes
        if not same or model.image_ids != (models or [model])[0].image_ids:
            raise ValueError(
                f'{config}: its test split has other images or classes than '
                f'{args.pairs[0]}; detectors are compared over the same images'
            )
        write_coco_results(folder / 'detections.json', model.detections, truth)
        models.append(model)
    if truth is None:
        truth = GroundTruth.from_file(args.ann)
    image_ids = models[0].image_ids if models else list(truth.images)[: args.limit]
    for path in args.results:
        detections = read_results(path, truth)
        models.append(Model.from_detections(next(names), detections, image_ids))
    return models, truth


def main() -> None:
    args = parse_args()
    make_safe()
    # The libraries' chatter would break the progress bar.
    warnings.filterwarnings('ignore')
    MMLogger.get_instance('mmengine', log_level='ERROR').setLevel(logging.ERROR)
    args.out.mkdir(parents=True, exist_ok=True)
    command = shlex.join(['python', 'tools/analyze.py', *sys.argv[1:]])
    try:
        models, truth = collect(args)
    except KeyboardInterrupt:
        print('\nStopped. The same command goes on where it was.')
        sys.exit(130)
    except ValueError as error:
        sys.exit(f'analyze: error: {error}')
    print('working out the numbers and drawing', flush=True)
    summaries = write_analysis(models, truth, args.out, command, args.cases)
    for summary in summaries:
        values = summary.scalars
        print(
            f'{summary.model.name}: AP {100 * values["AP"]:.1f}, rank correlation '
            f'of score and IoU {values["rank correlation, IoU >= 0.5"]:.3f}, '
            f'LaECE {100 * values["LaECE"]:.1f}'
        )
    if args.write_docs:
        write_docs(summaries, truth, args.out, args.write_docs, command)
    print(f'page: {args.out / "report.html"}')


if __name__ == '__main__':
    main()
