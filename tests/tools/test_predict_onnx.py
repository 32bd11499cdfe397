"""``predict_onnx`` names the argument that is wrong."""

import json

import cv2
import numpy as np
import pytest

from tests.support.processes import ROOT, run_tool

pytest.importorskip('onnxruntime')
onnx = pytest.importorskip('onnx')

# Finds one object of class 1 in every image.
GRAPH = """
<ir_version: 8, opset_import: ["": 17]>
found (uint8[n, h, w, 3] images, int64[n, 2] sizes)
  => (float[1, 1, 4] boxes, float[1, 1] scores, int64[1, 1] labels)
{
  corners = Constant <value_floats: floats = [1.0, 2.0, 9.0, 8.0]> ()
  score = Constant <value_floats: floats = [0.9]> ()
  label = Constant <value_ints: ints = [1]> ()
  axes = Constant <value_ints: ints = [0, 1]> ()
  axis = Constant <value_ints: ints = [0]> ()
  boxes = Unsqueeze (corners, axes)
  scores = Unsqueeze (score, axis)
  labels = Unsqueeze (label, axis)
}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ('a/0.png', 'b/0.png'):
        (tmp_path / name).parent.mkdir()
        cv2.imwrite(name, np.zeros((20, 30, 3), np.uint8))
    return tmp_path


def save(**facts):
    """Write an exported file with these facts."""
    model = onnx.parser.parse_model(GRAPH)
    model.ir_version = 8
    for name, value in facts.items():
        model.metadata_props.add(key=name, value=json.dumps(value))
    onnx.save(model, 'model.onnx')


def predict(*arguments):
    run_tool(ROOT / 'tools/predict_onnx.py', 'model.onnx', *arguments)


@pytest.mark.parametrize(
    ('resize', 'classes', 'line'),
    [
        (None, ['cat', 'dog'], 'a/0.png dog 0.900 1.0 2.0 9.0 8.0'),
        (None, [], 'a/0.png 1 0.900 1.0 2.0 9.0 8.0'),
        (
            dict(scale=[15, 10], keep_ratio=False),
            ['cat', 'dog'],
            'a/0.png dog 0.900 2.0 4.0 18.0 16.0',
        ),
    ],
)
def test_detections_are_printed_with_or_without_names_and_resizing(
    folder, capsys, resize, classes, line
):
    save(nms=True, resize=resize, classes=classes)
    predict('a/0.png', '--out', 'drawn')
    assert capsys.readouterr().out.splitlines() == [line]
    assert cv2.imread('drawn/0.png').any()


def test_openvino_prints_the_same_detections(folder, capsys):
    pytest.importorskip('openvino', reason='the other engine')
    save(nms=True, resize=None, classes=['cat', 'dog'])
    predict('a/0.png', '--backend', 'openvino')
    assert capsys.readouterr().out == 'a/0.png dog 0.900 1.0 2.0 9.0 8.0\n'


def test_image_that_is_missing_or_none_is_named(folder):
    save(nms=True, resize=None, classes=[])
    (folder / 'text.png').write_text('no image')
    for name in ('misspelt.png', 'text.png'):
        with pytest.raises(SystemExit, match=f'{name} is not there, or is not an im'):
            predict('a/0.png', name)


def test_images_of_one_name_are_not_drawn_over_each_other(folder, capsys):
    save(nms=True, resize=None, classes=[])
    with pytest.raises(SystemExit):
        predict('a/0.png', 'b/0.png', '--out', 'drawn')
    assert 'images of the same name' in capsys.readouterr().err


def test_model_that_is_not_an_exported_one_is_named(folder):
    with pytest.raises(SystemExit, match=r'model\.onnx cannot be loaded'):
        predict('a/0.png')
    (folder / 'model.onnx').write_bytes(b'no model')
    with pytest.raises(SystemExit, match=r'model\.onnx cannot be loaded'):
        predict('a/0.png')
    save()
    with pytest.raises(SystemExit, match=r'was not written by tools/export\.py'):
        predict('a/0.png')
    save(nms=False, resize=None, classes=[])
    with pytest.raises(SystemExit, match=r'model\.onnx has no suppression.*--no-nms'):
        predict('a/0.png')
