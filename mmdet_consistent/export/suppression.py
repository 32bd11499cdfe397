"""Non-maximum suppression of a batch, as an ONNX graph."""

import onnx
import onnx.parser
from mmengine.config import ConfigDict

# ONNX's operator separates the classes exactly, where adding an offset to the boxes of
# each class would round them. Kept scores go back to their places, all others become
# -1, and the best of each image are returned, padded to the same number.
GRAPH = """
<ir_version: {ir}, opset_import: ["": {opset}]>
suppression (float[n, m, 4] nms_boxes, float[n, m, c] nms_scores)
  => (float[n, k, 4] boxes, float[n, k] scores, int64[n, k] labels)
{{
  nms_limit = Constant <value_ints: ints = [{max_per_img}]> ()
  nms_iou = Constant <value_floats: floats = [{iou_threshold}]> ()
  nms_floor = Constant <value_floats: floats = [0.0]> ()
  nms_one = Constant <value_ints: ints = [1]> ()
  nms_two = Constant <value_ints: ints = [2]> ()
  nms_zero = Constant <value_float: float = 0.0> ()
  nms_nobody = Constant <value_int: int = -1> ()

  nms_class_scores = Transpose <perm: ints = [0, 2, 1]> (nms_scores)
  nms_chosen = NonMaxSuppression (nms_boxes, nms_class_scores, nms_limit, nms_iou,
                                  nms_floor)

  nms_chosen_scores = GatherND (nms_class_scores, nms_chosen)
  nms_shape = Shape (nms_class_scores)
  nms_none = ConstantOfShape <value: tensor = float[1] {{-1.0}}> (nms_shape)
  nms_kept = ScatterND (nms_none, nms_chosen, nms_chosen_scores)
  nms_flat = Flatten <axis: int = 1> (nms_kept)

  nms_flat_shape = Shape (nms_flat)
  nms_places = Gather <axis: int = 0> (nms_flat_shape, nms_one)
  nms_count = Min (nms_limit, nms_places)
  nms_best, nms_place = TopK <axis: int = 1> (nms_flat, nms_count)
  nms_rows = Gather <axis: int = 0> (nms_shape, nms_two)
  nms_label = Div (nms_place, nms_rows)
  nms_row = Mod (nms_place, nms_rows)
  nms_box_index = Unsqueeze (nms_row, nms_two)
  nms_best_boxes = GatherND <batch_dims: int = 1> (nms_boxes, nms_box_index)
  nms_is_there = GreaterOrEqual (nms_best, nms_zero)
  nms_is_box = Unsqueeze (nms_is_there, nms_two)
  boxes = Where (nms_is_box, nms_best_boxes, nms_zero)
  scores = Where (nms_is_there, nms_best, nms_zero)
  labels = Where (nms_is_there, nms_label, nms_nobody)
}}
"""


def append_suppression(model: onnx.ModelProto, test_cfg: ConfigDict) -> onnx.ModelProto:
    """Append suppression and padding to a model that returns candidates.

    Args:
        model: Its outputs are boxes (N, M, 4) and scores (N, M, C); a box with a score
            that is not above 0 is no candidate for that class.
        test_cfg: The head's, with ``nms.iou_threshold`` and ``max_per_img``.

    Returns:
        A model with the outputs ``boxes`` (N, K, 4), ``scores`` (N, K) and ``labels``
        (N, K), best first, for K = ``max_per_img``. Padding has boxes and scores of 0
        and labels of -1.
    """
    domains = {opset.domain: opset.version for opset in model.opset_import}
    text = GRAPH.format(
        ir=model.ir_version,
        opset=domains.get('', domains.get('ai.onnx')),
        max_per_img=int(test_cfg.max_per_img),
        iou_threshold=float(test_cfg.nms.iou_threshold),
    )
    suppression = onnx.parser.parse_model(text)
    names = [output.name for output in model.graph.output]
    inputs = [value.name for value in suppression.graph.input]
    merged = onnx.compose.merge_models(
        model, suppression, io_map=list(zip(names, inputs))
    )
    del merged.opset_import[:]  # it names the operators' version twice
    merged.opset_import.extend(model.opset_import)
    return merged
