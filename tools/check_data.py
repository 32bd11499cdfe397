r"""Check a data set before training.

Examples:
    python tools/check_data.py configs/quickstart/con_retinanet_bccd.py
    python tools/check_data.py data/coco/annotations/instances_val2017.json \
        --image-folder data/coco/val2017 --images quick
    python tools/check_data.py data/VOCdevkit/VOC2007 --split trainval
    python tools/check_data.py path/to/yolo/data.yaml --split train
    python tools/check_data.py train.json --write train_clean.json

Exits with status 0 if the data are good, 1 if there is a problem.
"""

import argparse
import json
import re
from collections.abc import Iterator
from pathlib import Path

import mmdet_consistent  # noqa: F401  # isort: skip  # operators before mmdet
from mmdet.utils import register_all_modules
from mmengine.config import Config

from mmdet_consistent.datasets.check import check_dataset_config
from mmdet_consistent.datasets.check_coco import check_coco_set
from mmdet_consistent.datasets.check_image import LEVELS, MAX_PIXELS
from mmdet_consistent.datasets.check_voc import check_voc_set
from mmdet_consistent.datasets.kinds import HARMLESS, finding
from mmdet_consistent.datasets.problems import DataError, Problem, summary
from mmdet_consistent.utils import atomic
from mmdet_consistent.utils.configs import plain_datasets

Checked = Iterator[tuple[str, list[Problem], str]]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('what', help='config, COCO file, VOC folder, or data.yaml')
    parser.add_argument('--image-folder', help='folder of the images of a COCO file')
    parser.add_argument('--split', help='split of VOC or YOLO; default: all')
    parser.add_argument('--classes', nargs='+', help='known classes of a VOC folder')
    parser.add_argument(
        '--images',
        choices=LEVELS,
        default='full',
        help='check of image files: none, both ends only, or decode completely',
    )
    parser.add_argument(
        '--max-pixels', type=int, default=MAX_PIXELS, help='largest image allowed'
    )
    parser.add_argument(
        '--limit', type=int, default=20, help='number of problems to list; -1: all'
    )
    parser.add_argument('--write', help='write the COCO file without what is bad')
    args = parser.parse_args()
    if not Path(args.what).exists():
        parser.error(f'not found: {args.what}')
    if args.write and not args.what.endswith('.json'):
        parser.error('--write needs a COCO annotation file (.json)')
    return args


def check(args: argparse.Namespace) -> Checked:
    """Yield name, problems and size of each data set."""
    if args.what.endswith('.json'):
        cleaned, *found = check_coco_set(
            args.what, args.image_folder, args.images, args.max_pixels
        )
        if args.write:
            atomic.write(args.write, json.dumps(cleaned).encode())
        yield args.what, *found
    elif is_yolo(args.what):
        yield from check_yolo(args)
    elif Path(args.what).is_dir():
        yield from check_voc_folder(args)
    else:
        yield from check_config(args)


def is_yolo(path: str) -> bool:
    """Return whether the path is a YOLO folder or its data.yaml, and no config."""
    if Path(path).is_dir():
        return Path(path, 'data.yaml').is_file()
    if not path.endswith(('.yaml', '.yml')):
        return False
    return re.search(r'^names\s*:', Path(path).read_text('utf-8'), re.M) is not None


def check_yolo(args: argparse.Namespace) -> Checked:
    """Check splits of a YOLO data set as the COCO files that they would become."""
    # Imported where it is used: the other formats need no globox.
    from mmdet_consistent.datasets.yolo import YoloData, read_yolo

    data = YoloData(args.what)
    for split in [args.split] if args.split else data.splits:
        found = read_yolo(data, split, args.max_pixels)
        _, problems, size = check_coco_set(
            str(data.path),
            found.image_folder,
            args.images,
            args.max_pixels,
            content=found.content,
            places=found.places,
        )
        yield f'{data.path}: {split}', found.problems + problems, size


def check_voc_folder(args: argparse.Namespace) -> Checked:
    lists = Path(args.what, 'ImageSets', 'Main')
    paths = [lists / f'{args.split}.txt'] if args.split else image_lists(lists)
    if not paths:
        raise DataError(
            f'{args.what}: no ImageSets/Main/*.txt, so this is neither VOC nor YOLO'
        )
    for path in paths:
        yield (
            str(path),
            *check_voc_set(
                args.what, str(path), args.classes, args.images, args.max_pixels
            ),
        )


def image_lists(folder: Path) -> list[Path]:
    """Return the lists of images in a folder, without VOC's lists per class.

    ``cat_train.txt`` beside ``train.txt`` says of each image in the latter whether it
    shows a cat: ``000001 -1``.
    """
    paths = sorted(folder.glob('*.txt'))
    splits = {path.stem for path in paths}

    def is_of_class(path: Path) -> bool:
        lines = path.read_bytes().split(b'\n')
        marked = all(re.search(rb'\s(-1|0|1)$', s.strip()) for s in lines if s.strip())
        return marked and path.stem.rpartition('_')[2] in splits - {path.stem}

    return [path for path in paths if not is_of_class(path)]


def check_config(args: argparse.Namespace) -> Checked:
    register_all_modules()
    cfg = Config.fromfile(args.what)
    done = set()
    for split in ('train', 'val', 'test'):
        loader = cfg.get(f'{split}_dataloader') or {}
        for dataset in plain_datasets(loader.get('dataset')):
            for name, *found in check_one(dataset, args):
                if name not in done:
                    yield name, *found
                done.add(name)


def check_one(dataset: dict, args: argparse.Namespace) -> Checked:
    """Check one data set; a file that can't be read is its problem."""
    try:
        yield from check_dataset_config(dataset, args.images, args.max_pixels)
    except DataError as error:
        path = str(dataset.get('ann_file'))
        found = finding('unusable file', str(error))
        yield path, [Problem(path, 'file', *found)], 'no data'


def main() -> None:
    args = parse_args()
    limit = None if args.limit < 0 else args.limit
    wrong = 0
    try:
        for name, problems, size in check(args):
            wrong += sum(problem.effect not in HARMLESS for problem in problems)
            print(f'{name}: {size}, {len(problems)} problems')
            if problems:
                print(summary(problems, limit))
    except DataError as error:
        raise SystemExit(f'check_data: {error}') from error
    raise SystemExit(1 if wrong else 0)


if __name__ == '__main__':
    main()
