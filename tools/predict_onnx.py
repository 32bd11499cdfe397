"""Detect objects with an exported file; needs only onnxruntime, numpy and OpenCV.

Example:
    python predict_onnx.py model.onnx image.jpg other.jpg --out drawn/
    python predict_onnx.py model.onnx image.jpg --backend openvino
"""

import argparse
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime


class OpenVino:
    """Runs a file with OpenVINO on the CPU, by the methods of onnxruntime's session."""

    def __init__(self, path: str) -> None:
        import openvino

        model = openvino.Core().read_model(path)
        self.custom_metadata_map = {
            name: model.get_rt_info(['framework', name]).astype(str)
            for name in ('resize', 'classes', 'nms', 'channels')
            if model.has_rt_info(['framework', name])
        }
        # Some CPUs would round to 16 bits by default.
        precise = {'INFERENCE_PRECISION_HINT': 'f32'}
        self.model = openvino.compile_model(model, 'CPU', precise)

    def get_modelmeta(self) -> 'OpenVino':
        """Return what has the ``custom_metadata_map``."""
        return self

    def run(self, names: list, inputs: dict) -> list:
        """Return the outputs of these names."""
        found = self.model(inputs)
        return [found[name] for name in names]


BACKENDS = dict(onnxruntime=onnxruntime.InferenceSession, openvino=OpenVino)


def load(path: str, backend: str = 'onnxruntime') -> Any:
    """Load a file of tools/export.py; exit with a message that names what is wrong."""
    try:
        session = BACKENDS[backend](path)
    except Exception as error:  # the engines' own types of errors are not public
        raise SystemExit(f'{path} cannot be loaded: {error}') from error
    facts = session.get_modelmeta().custom_metadata_map
    if not {'resize', 'classes', 'nms'} <= set(facts):
        raise SystemExit(f'{path} was not written by tools/export.py')
    if not json.loads(facts['nms']):
        raise SystemExit(f'{path} has no suppression: export it without --no-nms')
    return session


def resized(image: np.ndarray, scale: list, keep_ratio: bool) -> np.ndarray:
    """Resize an image as for testing the detector; ``scale`` is (width, height)."""
    height, width = image.shape[:2]
    if keep_ratio:
        factor = min(max(scale) / max(height, width), min(scale) / min(height, width))
        scale = [int(width * factor + 0.5), int(height * factor + 0.5)]
    return cv2.resize(image, scale, interpolation=cv2.INTER_LINEAR)


def predict(session: Any, images: list) -> list:
    """Detect objects in BGR images (H, W, 3), or gray ones (H, W).

    Args:
        session: What :func:`load` returns.
        images: Pixels as OpenCV reads them.

    Returns:
        Boxes (K, 4), xyxy in pixels, scores (K,) and class numbers (K,) of each image.
    """
    facts = session.get_modelmeta().custom_metadata_map
    resize = json.loads(facts['resize'])
    small = [resized(image, **resize) if resize else image for image in images]
    sizes = np.array([image.shape[:2] for image in small], np.int64)
    small = [image.reshape(*image.shape[:2], -1) for image in small]
    batch = np.zeros((len(small), *sizes.max(axis=0), small[0].shape[2]), np.uint8)
    for place, image in zip(batch, small):
        place[: image.shape[0], : image.shape[1]] = image[..., ::-1]
    outputs = session.run(
        ['boxes', 'scores', 'labels'], dict(images=batch, sizes=sizes)
    )
    results = []
    for image, size, boxes, scores, labels in zip(images, sizes, *outputs):
        factors = np.array(image.shape[:2]) / size
        found = labels >= 0
        boxes = boxes[found] * np.tile(factors[::-1], 2)
        results.append((boxes, scores[found], labels[found]))
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('model', help='file of tools/export.py, with suppression')
    parser.add_argument('images', nargs='+', help='image files')
    parser.add_argument('--score', type=float, default=0.3, help='lowest score')
    parser.add_argument('--out', type=Path, help='draw the detections into this folder')
    parser.add_argument('--backend', choices=BACKENDS, default='onnxruntime')
    args = parser.parse_args()
    if args.out and len({Path(path).name for path in args.images}) < len(args.images):
        parser.error('--out: images of the same name would replace each other')
    session = load(args.model, args.backend)
    facts = session.get_modelmeta().custom_metadata_map
    classes = json.loads(facts['classes'])
    is_gray = facts.get('channels') == '1'
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
    for path in args.images:
        image = cv2.imread(path, cv2.IMREAD_GRAYSCALE if is_gray else cv2.IMREAD_COLOR)
        if image is None:
            raise SystemExit(f'{path} is not there, or is not an image')
        for box, score, label in zip(*predict(session, [image])[0]):
            if score >= args.score:
                name = classes[label] if classes else label
                print(path, name, f'{score:.3f}', *box.round(1))
                corners = box.round().astype(int).tolist()
                cv2.rectangle(image, corners[:2], corners[2:], (0, 160, 255), 2)
        if args.out:
            cv2.imwrite(str(args.out / Path(path).name), image)


if __name__ == '__main__':
    main()
