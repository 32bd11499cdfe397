r"""Compare exported files with their INT8 versions: AP and latency.

Example:
    python -m tools.dev.export_int8 --run RetinaNet CONFIG CHECKPOINT \
        --untrained 'ConRetinaNet R50' configs/con_retinanet_r50_fpn.py

Calibrates on a config's training images and evaluates on its test set. Of an untrained
detector, only the latency is measured, on the first run's images at their own size. It
writes docs/results/export_int8.md.
"""

import argparse
import contextlib
import io
import itertools
import runpy
import shlex
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import onnxruntime
import torch
from mmdet.evaluation import CocoMetric
from mmdet.registry import MODELS
from mmengine.config import Config

from mmdet_consistent.analysis.detector import build_dataset, build_model
from mmdet_consistent.engine import make_safe
from mmdet_consistent.export import export_onnx
from mmdet_consistent.export.from_config import test_resize
from mmdet_consistent.export.int8 import calibration_images, quantize
from mmdet_consistent.utils import atomic
from mmdet_consistent.utils.tables import markdown_table
from mmdet_consistent.utils.timing import alternate, device_clock, ratios, summarize
from tools.dev import ROOT
from tools.dev.benchmark.machine import about_machine

PREDICT = runpy.run_path(str(ROOT / 'tools/predict_onnx.py'))['predict']
METRIC_NAMES = ('bbox_mAP', 'bbox_mAP_50', 'bbox_mAP_75')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--run',
        nargs=3,
        action='append',
        required=True,
        metavar=('NAME', 'CONFIG', 'CHECKPOINT'),
        help='a trained detector; may be repeated',
    )
    parser.add_argument(
        '--untrained', nargs=2, action='append', default=[], metavar=('NAME', 'CONFIG')
    )
    parser.add_argument('--images', type=int, default=64, help='to calibrate on')
    parser.add_argument('--repetitions', type=int, default=60, help='timed images')
    parser.add_argument(
        '--out', type=Path, default=ROOT / 'docs/results/export_int8.md'
    )
    return parser.parse_args()


def session_of(path: Path) -> onnxruntime.InferenceSession:
    """Load a file for one thread, so that its computing time is its own."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options)


def average_precision(session: Any, dataset: Any) -> dict:
    """Evaluate a file on a test set: metric name to value, in per cent."""
    metric = CocoMetric(dataset.ann_file, metric='bbox')
    metric.dataset_meta = dataset.metainfo
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        image = cv2.imread(info['img_path'])
        boxes, scores, labels = map(torch.from_numpy, PREDICT(session, [image])[0])
        found = dict(bboxes=boxes, scores=scores, labels=labels)
        sample = dict(
            img_id=info['img_id'], ori_shape=image.shape[:2], pred_instances=found
        )
        metric.process({}, [sample])
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints a lot
        values = metric.evaluate(len(dataset))
    return {name: 100 * values[f'coco/{name}'] for name in METRIC_NAMES}


def latencies(sessions: dict, dataset: Any, repetitions: int) -> dict:
    """Return the seconds of each repetition, one image after the other in turn."""
    paths = [dataset.get_data_info(i)['img_path'] for i in range(min(len(dataset), 8))]
    images = [cv2.imread(path) for path in paths]

    def run(session: Any, turn: Any, clock: Callable[[], float]) -> dict:
        image = images[next(turn) % len(images)]
        start = clock()
        PREDICT(session, [image])
        return dict(predict=clock() - start)

    samples = alternate(
        {k: partial(run, v, itertools.count()) for k, v in sessions.items()},
        device_clock('cpu', cpu_time=True),
        warmup=5,
        repetitions=repetitions,
        seconds=600,
    )
    return {name: parts['predict'] for name, parts in samples.items()}


def plain_steps(cfg: Config) -> Config:
    """Return the config with the steps that the study caches."""
    dataset = cfg.test_dataloader.dataset
    steps = [step.get('transforms', [step]) for step in dataset.pipeline]
    dataset.pipeline = list(itertools.chain(*steps))
    return cfg


def measure(
    name: str, detector: Any, cfg: Config, args: argparse.Namespace, trained: bool
) -> list[list[str]]:
    """Return the rows of a detector on the data of a config."""
    dataset = build_dataset(cfg)
    resize = test_resize(cfg) if trained else None
    with tempfile.TemporaryDirectory() as folder:
        paths = {kind: Path(folder) / f'{kind}.onnx' for kind in ('float32', 'INT8')}
        export_onnx(detector, paths['float32'], resize=resize)
        images = calibration_images(cfg, args.images if trained else 2)
        quantize(paths['float32'], paths['INT8'], images)
        sessions = {kind: session_of(path) for kind, path in paths.items()}
        sizes = {kind: path.stat().st_size / 1e6 for kind, path in paths.items()}
    seconds = latencies(sessions, dataset, args.repetitions if trained else 7)
    rows = []
    for kind, session in sessions.items():
        values = average_precision(session, dataset) if trained else {}
        ratio = summarize(ratios(seconds[kind], seconds['float32']))
        spread = '' if kind == 'float32' else f' ({ratio.q1:.2f}–{ratio.q3:.2f})'
        found = (values.get(metric) for metric in METRIC_NAMES)
        rows.append(
            [
                f'{name}, {kind}',
                *('–' if value is None else f'{value:.1f}' for value in found),
                f'{1000 * summarize(seconds[kind]).median:.1f}',
                f'{ratio.median:.2f}{spread}',
                f'{sizes[kind]:.1f}',
            ]
        )
        print(*rows[-1], sep='  ', flush=True)
    return rows


def main() -> None:
    args = parse_args()
    make_safe()
    rows = []
    data = [plain_steps(Config.fromfile(config)) for _, config, _ in args.run]
    for (name, _, checkpoint), cfg in zip(args.run, data):
        detector = build_model(cfg, checkpoint, 'cpu')
        rows += measure(name, detector, cfg, args, trained=True)
    for name, config in args.untrained:
        model = Config.fromfile(config).model
        model.backbone.init_cfg = None
        detector = MODELS.build(model)
        detector.init_weights()
        rows += measure(name, detector, data[0], args, trained=False)
    header = ['', 'AP', 'AP50', 'AP75', 'ms', 'time over float32', 'MB']
    command = shlex.join(['python', '-m', 'tools.dev.export_int8', *sys.argv[1:]])
    page = [
        '# Exported files in INT8: BCCD test split',
        f'Generated by `{command}`.',
        markdown_table(header, rows),
        f'Calibrated on {args.images} training images. Times are of one image through '
        '`tools/predict_onnx.py` without reading it, in onnxruntime with one thread: '
        'the computing time, median of images that both files take in turn; '
        'quartiles of the ratio in brackets. A detector without AP is untrained, and '
        'takes the images at their own size.',
        '; '.join(about_machine().values())
        + f', onnxruntime {onnxruntime.__version__}.',
    ]
    atomic.write(args.out, ('\n\n'.join(page) + '\n').encode())


if __name__ == '__main__':
    main()
