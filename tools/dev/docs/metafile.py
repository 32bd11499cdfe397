"""Write configs/metafile.yml and model-index.yml, which MIM and mmengine read.

Every model is one of our configs; its figures are the paper's, from
configs/paper_tables.json, and are labelled so.

Example:
    python -m tools.dev.docs.metafile            # write them
    python -m tools.dev.docs.metafile --check    # fail if they are out of date
"""

import json
from pathlib import Path

import yaml

from .generated import parse_args, write_or_check

ROOT = Path(__file__).resolve().parents[3]
HEAD = '# Made by `python -m tools.dev.docs.metafile` from configs/paper_tables.json.\n'
PAPER = dict(
    Title='Consistent Optimization for Single-Shot Object Detection',
    URL='https://arxiv.org/abs/1901.06563',
)
SOURCE = "the paper's figures, not run here"
COLLECTIONS = {'RetinaNet': 'ConRetinaNet', 'SSD512': 'ConSSD'}


def in_words(detector: str, settings: dict) -> str:
    """What a config is, in one line."""
    image = f'short side {settings["short_side"]}' if settings['short_side'] else ''
    words = [detector, settings['backbone'], image, settings['variant']]
    return ', '.join(word for word in words if word)


def models() -> list:
    """One entry for each config of the paper's tables, in their order."""
    rows = json.loads((ROOT / 'configs/paper_tables.json').read_text(encoding='utf-8'))
    found: dict = {}
    for row in rows:
        settings = row['settings']
        entry = found.setdefault(
            row['config'],
            dict(
                Name=Path(row['config']).stem,
                Alias=[],
                **{'In Collection': COLLECTIONS[settings['detector']]},
                Config=row['config'],
                Metadata=dict(
                    Description=in_words(settings['detector'], settings),
                    Epochs=settings['epochs'],
                    **{'Batch Size': settings['images_per_batch']},
                    **{'Source of Results': SOURCE},
                ),
                Results=[],
                Weights=None,
            ),
        )
        result = dict(
            Task='Object Detection',
            Dataset=f'COCO {row["split"]} (Table {row["table"]}; {SOURCE})',
            Metrics={
                'box ' + name: value for name, value in sorted(row['metrics'].items())
            },
        )
        entry['Results'].append(result)
    return list(found.values())


def render() -> dict:
    """Text of each file, by its path in the checkout."""
    collections = [
        dict(Name=name, Paper=dict(PAPER), Metadata={'Training Data': 'COCO'})
        for name in COLLECTIONS.values()
    ]
    metafile = dict(Collections=collections, Models=models())
    index = dict(Import=['configs/metafile.yml'])
    return {
        path: HEAD + yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
        for path, content in (
            ('configs/metafile.yml', metafile),
            ('model-index.yml', index),
        )
    }


def main() -> None:
    args = parse_args(__doc__)
    for name, text in render().items():
        refusal = f'{name} is out of date: run python -m tools.dev.docs.metafile'
        write_or_check(ROOT / name, text, args.check, refusal)


if __name__ == '__main__':
    main()
