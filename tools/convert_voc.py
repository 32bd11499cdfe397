"""Convert a Pascal VOC folder to COCO annotations, and resize the images if asked.

Example:
    python tools/convert_voc.py path/to/voc data/bccd --size 320 240 \
        --categories RBC WBC Platelets
"""

import argparse
from pathlib import Path

from mmdet_consistent.datasets.voc_to_coco import convert


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('voc_root', type=Path)
    parser.add_argument('out_root', type=Path)
    parser.add_argument('--categories', nargs='+', required=True)
    parser.add_argument('--splits', nargs='+', default=['train', 'val', 'test'])
    parser.add_argument(
        '--size', type=int, nargs=2, metavar=('WIDTH', 'HEIGHT'), help='in pixels'
    )
    args = parser.parse_args()
    size = tuple(args.size) if args.size else None
    for split in args.splits:
        dropped = convert(args.voc_root, split, args.categories, args.out_root, size)
        print(f'{split}: dropped {len(dropped)} objects without area')
        for sentence in dropped:
            print(f'  {sentence}')


if __name__ == '__main__':
    main()
