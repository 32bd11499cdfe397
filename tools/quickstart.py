"""Train a RetinaNet on, as it is and with a consistent head, and compare the two.

Both start from the same weights, trained on photos of blood cells, and train for the
same number of steps at the same time, each on one CPU core.

Example:
    python tools/quickstart.py
    python tools/quickstart.py --smoke
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import platform
import queue
import statistics
import sys
import time
import traceback
import warnings
from pathlib import Path
from typing import Any, TextIO

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

import mmdet_consistent
from mmdet_consistent.analysis.matching import pairwise_iou
from mmdet_consistent.engine import make_safe
from mmdet_consistent.utils import atomic
from mmdet_consistent.utils.tables import markdown_table

ROOT = Path(__file__).resolve().parents[1]
MODELS = {
    'RetinaNet': 'configs/quickstart/retinanet_on_bccd.py',
    'ConRetinaNet': 'configs/quickstart/con_retinanet_on_bccd.py',
}
# Title in the table to key in the metrics.
METRICS = {
    'AP': 'coco/bbox_mAP',
    'AP50': 'coco/bbox_mAP_50',
    'AP75': 'coco/bbox_mAP_75',
    'AP90': 'coco90/bbox_mAP',
}
# Okabe and Ito's colours: told apart with any colour vision.
PALETTE = ['#0072B2', '#D55E00', '#009E73', '#CC79A7', '#56B4E9', '#E69F00']
PICTURES = 3  # crowded places to draw
SAME = 0.8  # IoU from which two annotations are taken for one object


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--smoke', action='store_true', help='one minute, results mean nothing'
    )
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--work-dir', type=Path)
    parser.add_argument('--restart', action='store_true', help='discard earlier runs')
    args = parser.parse_args()
    folder = 'work_dirs/quickstart_smoke' if args.smoke else 'work_dirs/quickstart'
    args.work_dir = args.work_dir or Path(folder)
    return args


def positives_of(runner: Runner, outputs: dict) -> dict[str, float]:
    """Return the number of positives of each stage in the last training step."""
    positives = {k: float(v) for k, v in outputs.items() if k.startswith('num_pos')}
    if not positives:  # mmdet's own head: those of its last assignment
        infos = runner.model.bbox_head._raw_positive_infos
        sampled = infos.get('sampling_results', ())
        positives['num_pos'] = float(sum(len(result.pos_inds) for result in sampled))
    return positives


class ReportHook(Hook):
    """Sends the progress of a training to the main process, and records its steps.

    Attributes:
        step_seconds: Duration of each training step.
        num_pos: Name of a stage's positives to their number in each step.
    """

    def __init__(self, name: str, messages: Any) -> None:
        self.name = name
        self.messages = messages
        self.step_seconds: list[float] = []
        self.num_pos: dict[str, list[float]] = {}

    def before_train_iter(self, runner: Runner, *_: Any, **__: Any) -> None:
        """Start the clock of a step."""
        self.start = time.perf_counter()

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any, outputs: dict
    ) -> None:
        """Record a step and report it."""
        self.step_seconds.append(time.perf_counter() - self.start)
        for name, value in positives_of(runner, outputs).items():
            self.num_pos.setdefault(name, []).append(value)
        message = dict(
            done=runner.iter + 1,
            total=runner.max_iters,
            epoch=runner.epoch + 1,
            max_epochs=runner.max_epochs,
            ends_epoch=batch_idx + 1 == len(runner.train_dataloader),
            loss=float(outputs['loss']),
        )
        self.messages.put((self.name, message))


class Progress:
    """Prints the progress of the trainings, which run at the same time.

    A terminal has one line, which is rewritten every second; a log has one per epoch.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.printed = 0.0
        self.last: dict[str, dict] = {}
        # Number of steps and the time of the tenth one, by training.
        self.steps: dict[str, int] = {}
        self.timed_from: dict[str, float] = {}

    def update(self, name: str, message: dict) -> None:
        """Take a training's report of a step, and print if it is time."""
        now = time.perf_counter()
        self.last[name] = message
        self.steps[name] = self.steps.get(name, 0) + 1
        if self.steps[name] <= 10:
            self.timed_from[name] = now
        if not self.stream.isatty():
            if message['ends_epoch']:
                epochs = f'epoch {message["epoch"]}/{message["max_epochs"]}'
                print(f'{name}: {epochs}{self.left(now)}', file=self.stream, flush=True)
            return
        if now - self.printed < 1 and message['done'] < message['total']:
            return
        self.printed = now
        parts = (f'{n} {100 * m["done"] // m["total"]} %' for n, m in self.last.items())
        line = f'{", ".join(parts)}{self.left(now)}'.ljust(79)
        finished = all(m['done'] == m['total'] for m in self.last.values())
        end = '\n' if finished and len(self.last) == len(MODELS) else ''
        print(f'\r{line}', end=end, file=self.stream, flush=True)

    def left(self, now: float) -> str:
        """Estimate the time left; none before the pace is steady.

        The pace is the mean since the tenth step, pauses included: the first steps are
        slow, and a mean over a few steps jumps.
        """
        seconds = []
        for name, message in self.last.items():
            timed = self.steps[name] - 10
            if timed < 20:
                return ''
            pace = (now - self.timed_from[name]) / timed
            seconds.append(pace * (message['total'] - message['done']))
        longest = max(seconds)
        return f', about {longest // 60:.0f} min {longest % 60:02.0f} s left'


def quick_config(name: str, args: argparse.Namespace) -> Config:
    """Return a model's config for a full or a smoke run, with little output."""
    cfg = Config.fromfile(ROOT / MODELS[name])
    cfg.work_dir = str(args.work_dir / name.lower())
    cfg.log_level = 'ERROR'
    cfg.randomness.seed = args.seed
    cfg.default_hooks.checkpoint.max_keep_ckpts = 1
    if Path(cfg.work_dir, 'last_checkpoint').is_file() and not args.restart:
        cfg.update(resume=True, load_from=None)
    if args.smoke:
        cfg.train_cfg.max_epochs = cfg.train_cfg.val_interval = 1
        cfg.train_dataloader.batch_size = 2
        cfg.train_dataloader.dataset.indices = 8
        cfg.test_dataloader.dataset.indices = 8
    cfg.test_evaluator[0].outfile_prefix = str(detections_file(name, args, suffix=''))
    # The test split is evaluated once, after training; val is for tuning.
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    return cfg


def result_file(name: str, args: argparse.Namespace) -> Path:
    """Return the file of a model's figures."""
    return args.work_dir / name.lower() / f'result_seed{args.seed}.json'


def detections_file(
    name: str, args: argparse.Namespace, suffix: str = '.bbox.json'
) -> Path:
    """Return the file of a model's detections, in COCO's result format."""
    return args.work_dir / name.lower() / f'detections_seed{args.seed}{suffix}'


def train_and_test(name: str, args: argparse.Namespace, messages: Any) -> None:
    """Train (or resume) and test a model in a process of its own, on one core."""
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    warnings.filterwarnings('ignore')
    os.chdir(ROOT)
    path = args.work_dir / f'{name.lower()}.txt'
    log = open(path, 'a', buffering=1)  # noqa: SIM115  loggers write until the end
    with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        try:
            make_safe()
            result = run_model(name, args, messages)
        except BaseException as error:
            traceback.print_exc()
            messages.put((name, f'{type(error).__name__}: {error}'))
            raise
    atomic.write(result_file(name, args), json.dumps(result).encode())
    messages.put((name, None))


def run_model(name: str, args: argparse.Namespace, messages: Any) -> dict:
    """Train and test a model and return its figures."""
    cfg = quick_config(name, args)
    report = ReportHook(name, messages)
    runner = Runner.from_cfg(cfg)
    runner.register_hook(report, priority='LOW')
    runner.train()
    metrics = runner.test()
    last_epoch = len(runner.train_dataloader)
    batch = cfg.train_dataloader.batch_size
    return dict(
        metrics={key: float(value) for key, value in metrics.items()},
        num_pos={
            key: statistics.mean(values[-last_epoch:]) / batch
            for key, values in report.num_pos.items()
        },
        step_seconds=statistics.median(report.step_seconds[2:] or [float('nan')]),
    )


def run_all(args: argparse.Namespace) -> dict[str, dict]:
    """Train and test the models that are not done yet, and return all figures."""
    known = [] if args.restart else [n for n in MODELS if result_file(n, args).exists()]
    for name in known:
        path = result_file(name, args)
        print(f'{name}: done before, see {path} (--restart to train again)')
    context = multiprocessing.get_context('spawn')
    messages = context.Queue()
    options = dict(target=train_and_test, daemon=True)
    processes = {
        name: context.Process(args=(name, args, messages), **options)
        for name in MODELS
        if name not in known
    }
    for process in processes.values():
        process.start()
    progress, running = Progress(sys.stdout), set(processes)
    while running:
        with contextlib.suppress(queue.Empty):
            name, message = messages.get(timeout=1)
            if isinstance(message, dict):
                progress.update(name, message)
                if message['done'] == message['total']:
                    print(f'{name}: testing', flush=True)
                continue
            running.discard(name)
            if message:
                log = args.work_dir / f'{name.lower()}.txt'
                sys.exit(f'{name} failed: {message}\nSee {log}')
        for name in [n for n in running if processes[n].exitcode not in (None, 0)]:
            sys.exit(f'{name} was ended by status {processes[name].exitcode}')
    return {name: json.loads(result_file(name, args).read_text()) for name in MODELS}


def crowded_places(coco: dict, count: int) -> list[tuple[dict, np.ndarray]]:
    """Return images and two overlapping objects of each, most overlap first.

    Args:
        coco: Annotations in COCO form.
        count: Number of places, one per image.

    Returns:
        Each image, and the (2, 4) boxes of its two objects, xyxy in pixels.
    """
    places = []
    for info in coco['images']:
        own = [a['bbox'] for a in coco['annotations'] if a['image_id'] == info['id']]
        boxes = np.array(own, float).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        iou = np.triu(pairwise_iou(boxes, boxes), 1)
        iou[iou > SAME] = 0
        if iou.any():
            pair = np.unravel_index(iou.argmax(), iou.shape)
            places.append((iou.max(), info, boxes[list(pair)]))
    places.sort(key=lambda place: -place[0])
    return [(info, boxes) for _, info, boxes in places[:count]]


def draw(args: argparse.Namespace, path: Path) -> None:
    """Draw what both models find in the most crowded places of the test images.

    Scores of different heads are not comparable, so each image shows as many detections
    as it has objects, the best ones.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    cfg = Config.fromfile(ROOT / MODELS['RetinaNet'])
    data_root = ROOT / cfg.data_root
    coco = json.loads((data_root / 'annotations/test.json').read_text())
    tested = json.loads(detections_file('RetinaNet', args).read_text())
    if args.smoke:
        ids = {detection['image_id'] for detection in tested}
        coco['images'] = [info for info in coco['images'] if info['id'] in ids]
    places = crowded_places(coco, PICTURES)
    columns = {'ground truth': coco['annotations']}
    for name in MODELS:
        found = json.loads(detections_file(name, args).read_text())
        columns[name] = sorted(found, key=lambda detection: -detection['score'])
    figure = Figure(
        figsize=(3 * len(columns), 3 * len(places) + 0.7), layout='constrained'
    )
    axes = figure.subplots(len(places), len(columns), squeeze=False)
    for axis, title in zip(axes[0], columns):
        axis.set_title(title)
    for row, (info, pair) in zip(axes, places):
        image = cv2.imread(str(data_root / 'images' / info['file_name']))
        centre = (pair[:, :2].min(0) + pair[:, 2:].max(0)) / 2
        reach = 0.85 * (pair[:, 2:].max(0) - pair[:, :2].min(0)).max()
        count = sum(a['image_id'] == info['id'] for a in coco['annotations'])
        for axis, boxes in zip(row, columns.values()):
            axis.imshow(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
            axis.set(xticks=[], yticks=[])
            own = [item for item in boxes if item['image_id'] == info['id']]
            draw_boxes(axis, own[:count])
            axis.set_xlim(centre[0] - reach, centre[0] + reach)
            axis.set_ylim(centre[1] + reach, centre[1] - reach)
    handles = [
        Patch(fc='none', ec=PALETTE[i % len(PALETTE)], label=name)
        for i, name in enumerate(cfg.classes)
    ]
    figure.legend(handles=handles, loc='outside lower center', ncols=len(handles))
    figure.savefig(path, dpi=80)


def draw_boxes(axis: Any, boxes: list[dict]) -> None:
    """Draw annotations or detections of an image; only the latter have scores."""
    from matplotlib.patches import Rectangle

    for item in boxes:
        x, y, width, height = item['bbox']
        colour = PALETTE[(item['category_id'] - 1) % len(PALETTE)]
        outline = dict(fill=False, ec=colour, lw=1.8)
        axis.add_patch(Rectangle((x, y), width, height, **outline))
        if 'score' in item:
            background = dict(fc=colour, ec='none', pad=0.8)
            style = dict(fontsize=7, color='white', va='top', bbox=background)
            text = axis.text(x + 1, y + 1, f'{item["score"]:.2f}', **style)
            text.set_clip_on(True)


def table(results: dict) -> str:
    """Render the table that compares both models."""
    rows = []
    for name, result in results.items():
        positives = ', '.join(f'{v:.0f}' for v in result['num_pos'].values()) or '–'
        aps = [f'{ap:.1f}' for ap in percent(result).values()]
        rows.append([name, *aps, positives, f'{result["step_seconds"]:.2f}'])
    header = ['', *METRICS, 'positives per image, by stage', 's/step']
    return markdown_table(header, rows)


def percent(result: dict) -> dict[str, float]:
    """Return a model's AP in per cent; mmdet leaves them out if nothing is found."""
    return {
        title: 100 * result['metrics'].get(key, 0.0) for title, key in METRICS.items()
    }


def main() -> None:
    args = parse_args()
    # A first run should show progress, not the libraries' deprecations.
    warnings.filterwarnings('ignore')
    os.chdir(ROOT)
    # Each training has a core: more threads would get in each other's way.
    os.environ.update(OMP_NUM_THREADS='1', PYTHONWARNINGS='ignore')
    args.work_dir.mkdir(parents=True, exist_ok=True)
    start = time.time()
    try:
        results = run_all(args)
    except KeyboardInterrupt:
        print('\nStopped. The same command resumes from the last finished epoch.')
        sys.exit(130)
    picture = args.work_dir / 'detections.png'
    draw(args, picture)
    text = table(results)
    base, ours = (percent(results[name])['AP'] for name in MODELS)
    note = (
        f'Seed {args.seed}: {ours - base:+.1f} AP from the same start with the same '
        f'number of steps, each on one core at the same time. {platform.machine()}, '
        f'Python {platform.python_version()}, torch {torch.__version__}, '
        f'mmdet_consistent {mmdet_consistent.__version__}.'
    )
    print(f'\n{text}\n\n{note}\n\npicture: {picture} ({time.time() - start:.0f} s)')
    print('\nNext: your own data (docs/getting_started.md), or COCO with 4 GPUs:')
    print('  tools/dist_train.sh configs/recommended/con_retinanet_r50_fpn.py 4')


if __name__ == '__main__':
    main()
