"""Compare checkpoints on one test set: a table of AP, latency and parameters.

Example:
    python tools/compare.py configs/retinanet_r50_fpn.py baseline.pth \
        configs/con_retinanet_r50_fpn.py consistent.pth --out comparison.md

Latency is that of one image, including preprocessing and suppression. The detectors
take turns, so that a busy machine slows all of them alike.
"""

import argparse
import os
from pathlib import Path

import torch
from mmengine.config import Config, DictAction
from mmengine.runner import Runner

from mmdet_consistent.engine import make_safe
from mmdet_consistent.engine.checkpoint import is_there
from mmdet_consistent.engine.launch import (
    add_hooks,
    friendly_errors,
    load_config,
    tested_datasets,
)
from mmdet_consistent.utils.atomic import write
from mmdet_consistent.utils.errors import ConfigError
from mmdet_consistent.utils.tables import markdown_table
from mmdet_consistent.utils.timing import alternate, device_clock, summarize

AP_COLUMNS = {
    'AP': 'bbox_mAP',
    'AP50': 'bbox_mAP_50',
    'AP75': 'bbox_mAP_75',
    'APs': 'bbox_mAP_s',
    'APm': 'bbox_mAP_m',
    'APl': 'bbox_mAP_l',
}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'pairs', nargs='+', metavar='CONFIG CHECKPOINT', help='one pair per detector'
    )
    parser.add_argument('--names', nargs='+', help='default: the config names')
    parser.add_argument('--out', type=Path, help='write the table to this file')
    parser.add_argument(
        '--work-dir', default='work_dirs/compare', help='folder for logs'
    )
    parser.add_argument('--repetitions', type=int, default=20, help='for the latency')
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, help='overrides for all configs'
    )
    args = parser.parse_args()
    if len(args.pairs) % 2:
        parser.error('each config needs a checkpoint: CONFIG CHECKPOINT …')
    args.pairs = list(zip(args.pairs[::2], args.pairs[1::2]))
    args.names = args.names or [Path(config).stem for config, _ in args.pairs]
    if len(args.names) != len(args.pairs) or len(set(args.names)) != len(args.names):
        parser.error(f'--names: {len(args.pairs)} different names are needed')
    for _, checkpoint in args.pairs:
        if not is_there(checkpoint):
            parser.error(f'checkpoint not found: {checkpoint}')
    return args


def test_file(cfg: Config) -> str:
    """Return the annotation files that a config is tested on."""
    files = [
        os.path.normpath(
            os.path.join(d.get('data_root') or '', d.get('ann_file') or '')
        )
        for d in tested_datasets(cfg)
    ]
    return ' + '.join(files)


def figures(runner: Runner) -> dict:
    """Test, and return the AP of each kind in percent."""
    found = runner.test()
    values = {
        column: value
        for name, value in found.items()
        for column, metric in AP_COLUMNS.items()
        # (Metrics at single thresholds have other prefixes.)
        if name in (metric, f'coco/{metric}', f'pascal_voc/{metric}')
    }
    if not values:
        raise ConfigError(
            f'test_evaluator gives {sorted(found)}, but no {AP_COLUMNS["AP"]}: add '
            "dict(type='CocoMetric', metric='bbox'). If it is there, nothing was "
            'detected'
        )
    return {name: 100 * value for name, value in values.items() if value >= 0}


def one_image(runner: Runner) -> dict:
    """Return the first image of the test set, as a batch of one."""
    batch = next(iter(runner.test_dataloader))
    return {key: value[:1] for key, value in batch.items()}


def latencies(runners: dict, repetitions: int) -> dict:
    """Return each detector's median milliseconds per image, timed alternately."""
    device = 'cuda' if torch.cuda.is_available() else 'cpu'

    def timed(model: torch.nn.Module, batch: dict):
        def run(clock) -> dict:
            start = clock()
            with torch.no_grad():
                model.test_step(batch)
            return dict(image=clock() - start)

        return run

    runs = {
        name: timed(runner.model.eval(), one_image(runner))
        for name, runner in runners.items()
    }
    samples = alternate(
        runs, device_clock(device), warmup=2, repetitions=repetitions, seconds=60
    )
    return {
        name: 1000 * summarize(parts['image']).median for name, parts in samples.items()
    }


def compare(args: argparse.Namespace) -> str:
    """Test and time the detectors; return a table in Markdown."""
    configs = {}
    for name, (path, checkpoint) in zip(args.names, args.pairs):
        cfg = load_config(path, args.cfg_options, work_dir=f'{args.work_dir}/{name}')
        cfg.load_from = checkpoint
        add_hooks(cfg, 'ConfigCheckHook')
        configs[name] = cfg
    tested = {name: test_file(cfg) for name, cfg in configs.items()}
    if len(set(tested.values())) > 1:
        raise ConfigError(
            f'the configs are tested on different data: {tested}; set '
            'test_dataloader.dataset.ann_file to the same file'
        )
    runners = {name: Runner.from_cfg(cfg) for name, cfg in configs.items()}
    results = {name: figures(runner) for name, runner in runners.items()}
    times = latencies(runners, args.repetitions)
    columns = [c for c in AP_COLUMNS if any(c in row for row in results.values())]
    rows = []
    for name, runner in runners.items():
        parameters = sum(p.numel() for p in runner.model.parameters())
        aps = [results[name].get(column) for column in columns]
        cells = ['–' if ap is None else f'{ap:.1f}' for ap in aps]
        rows.append([name, *cells, f'{times[name]:.1f}', f'{parameters / 1e6:.2f}'])
    table = markdown_table(['', *columns, 'ms/image', 'million parameters'], rows)
    kind = torch.cuda.get_device_name() if torch.cuda.is_available() else 'CPU'
    threads = torch.get_num_threads()
    return (
        f'{table.rstrip()}\n\nTested on `{next(iter(tested.values()))}`; latency: '
        f'median of one image, {kind}, {threads} thread{"s" * (threads > 1)}, '
        f'torch {torch.__version__}. Made by `tools/compare.py`.\n'
    )


def main() -> None:
    args = parse_args()
    make_safe()
    with friendly_errors():
        text = compare(args)
    print(f'\n{text}')
    if args.out:
        write(args.out, text.encode())


if __name__ == '__main__':
    main()
