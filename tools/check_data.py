r"""Look for what is wrong in a data set before a training meets it.

Examples:
    python tools/check_data.py configs/quickstart/con_retinanet_bccd.py
    python tools/check_data.py data/coco/annotations/instances_val2017.json \
        --image-folder data/coco/val2017 --images quick
    python tools/check_data.py data/VOCdevkit/VOC2007 --split trainval
    python tools/check_data.py train.json --write train_clean.json

Ends with status 0 if all is well, 1 if something is wrong.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from mmdet.utils import register_all_modules
from mmengine.config import Config

from mmdet_consistent.datasets.check import (
    check_coco_set,
    check_dataset_config,
    check_voc_set,
)
from mmdet_consistent.datasets.check_image import LEVELS, MAX_PIXELS
from mmdet_consistent.datasets.problems import KEPT, DataError, Problem, summary
from mmdet_consistent.utils import atomic


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('what', help='config, COCO annotation file, or VOC folder')
    parser.add_argument('--image-folder', help='images of a COCO file')
    parser.add_argument('--split', help='a list of a VOC folder; default: all')
    parser.add_argument('--classes', nargs='+', help='names that a VOC folder may use')
    parser.add_argument(
        '--images',
        choices=LEVELS,
        default='full',
        help='how closely to look at images: not, both ends of the file, decode all',
    )
    parser.add_argument('--max-pixels', type=int, default=MAX_PIXELS)
    parser.add_argument(
        '--limit', type=int, default=20, help='problems to name; -1: all of them'
    )
    parser.add_argument('--write', help='write a COCO file without what is bad')
    args = parser.parse_args()
    if not Path(args.what).exists():
        parser.error(f'not found: {args.what}')
    if args.write and not args.what.endswith('.json'):
        parser.error('--write needs a COCO annotation file (.json)')
    return args


def check(args: argparse.Namespace) -> Iterator[tuple[str, list[Problem], str]]:
    """Yield name, problems and size of each data set."""
    if args.what.endswith('.json'):
        cleaned, problems, size = check_coco_set(
            args.what, args.image_folder, args.images, args.max_pixels
        )
        if args.write:
            atomic.write(args.write, json.dumps(cleaned).encode())
        yield args.what, problems, size
    elif Path(args.what).is_dir():
        lists = sorted(Path(args.what, 'ImageSets', 'Main').glob('*.txt'))
        if args.split:
            lists = [Path(args.what, 'ImageSets', 'Main', f'{args.split}.txt')]
        if not lists:
            raise DataError(f'{args.what}: no ImageSets/Main/*.txt, so no VOC folder')
        for path in lists:
            found = check_voc_set(
                args.what, str(path), args.classes, args.images, args.max_pixels
            )
            yield str(path), *found
    else:
        register_all_modules()
        cfg = Config.fromfile(args.what)
        done = set()
        for split in ('train', 'val', 'test'):
            loader = cfg.get(f'{split}_dataloader')
            if not loader:
                continue
            for name, *found in check_dataset_config(
                loader.dataset, args.images, args.max_pixels
            ):
                if name not in done:
                    yield name, *found
                done.add(name)


def main() -> None:
    args = parse_args()
    limit = None if args.limit < 0 else args.limit
    wrong = 0
    try:
        for name, problems, size in check(args):
            wrong += sum(problem.effect != KEPT for problem in problems)
            print(f'{name}: {size}, {len(problems)} problems')
            if problems:
                print(summary(problems, limit))
    except DataError as error:
        raise SystemExit(f'check_data: {error}') from error
    raise SystemExit(1 if wrong else 0)


if __name__ == '__main__':
    main()
