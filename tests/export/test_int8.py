"""INT8 files run, keep what the file stores, and stay near float32."""

import runpy

import numpy as np
import pytest
from mmengine.config import Config

from mmdet_consistent.utils.errors import ConfigError
from tests.support.processes import ROOT, run_tool
from tests.support.tiny_detector import save_weights, tiny_config

pytest.importorskip('onnxruntime')
onnx = pytest.importorskip('onnx')

from mmdet_consistent.export.int8 import (  # noqa: E402
    calibration_images,
    quantized_nodes,
)

GRAPH = """
<ir_version: 8, opset_import: ["": 17]>
net (float[1, 3, 8, 8] image, float[3, 3, 1, 1] w) => (float[1, 3, 8, 8] scores)
{
  scaled = Div (image, image)
  first = Conv (scaled, w)
  active = Relu (first)
  inner = Conv (active, w)
  joined = Add (inner, active)
  shifted = Add (joined, joined)
  waved = Sin (shifted)
  tower = Conv (waved, w)
  output = Conv (tower, w)
  raised = Add (output, output)
  scores = Sigmoid (raised)
}
"""


def config():
    """The quickstart's, with three levels and all paths absolute."""
    cfg = tiny_config()
    cfg.model.neck.num_outs = 3
    cfg.model.bbox_head.anchor_generator.strides = [8, 16, 32]
    dataset = cfg.train_dataloader.dataset
    dataset.data_root = str(ROOT / dataset.data_root)
    return cfg


def test_quantized_nodes_leaves_out_first_and_last_convolutions_and_the_rest():
    graph = onnx.parser.parse_model(GRAPH).graph
    for node in graph.node:
        node.name = node.output[0]
    # `joined` and `shifted` are behind a convolution, but a sine follows them.
    assert quantized_nodes(graph.node) == ['active', 'inner', 'tower']


@pytest.mark.slow
@pytest.mark.works_with(
    'ONNX Runtime INT8', 'faster detection in 8 bits', 'export.md#int8'
)
def test_int8_export_detects_nearly_what_float32_does(tmp_path):
    cfg = config()
    cfg.dump(str(tmp_path / 'config.py'))
    weights = save_weights(cfg, tmp_path / 'weights.pth')
    tool = runpy.run_path(str(ROOT / 'tools/predict_onnx.py'))
    [image] = calibration_images(cfg, 1)
    found, facts = [], []
    for name, options in (('float32', []), ('int8', ['--int8', '4'])):
        path = str(tmp_path / f'{name}.onnx')
        arguments = (str(tmp_path / 'config.py'), str(weights), path, *options)
        run_tool(ROOT / 'tools/export.py', *arguments)
        session = tool['load'](path)
        facts.append(session.get_modelmeta().custom_metadata_map)
        found.append(tool['predict'](session, [image[..., ::-1]])[0])
    assert facts[0] == facts[1]
    quantized = [
        node for node in onnx.load(path).graph.node if 'Linear' in node.op_type
    ]
    assert len(quantized) > 50
    (boxes, scores, _), (near_boxes, near_scores, _) = found
    assert len(scores) > 10
    np.testing.assert_allclose(near_scores, scores, atol=0.05)
    best = near_boxes[np.argmin(np.abs(near_boxes - boxes[0]).sum(axis=1))]
    np.testing.assert_allclose(best, boxes[0], atol=2)  # pixels


def test_calibration_images_are_the_training_sets_as_the_detector_sees_them():
    images = list(calibration_images(config(), 2))
    assert [image.shape for image in images] == [(240, 320, 3)] * 2
    assert images[0][..., 0].mean() > images[0][..., 2].mean()  # blood is red
    assert not np.array_equal(*images)


def test_config_without_training_images_is_refused():
    cfg = config()
    cfg.train_dataloader = None
    with pytest.raises(ConfigError, match=r'train_dataloader\.dataset: there is no im'):
        next(calibration_images(cfg, 1))
    with pytest.raises(ConfigError, match=r'test_dataloader\.dataset is missing'):
        next(calibration_images(Config(dict(train_dataloader=None)), 1))
