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
  {voting}
  nms_is_there = GreaterOrEqual (nms_best, nms_zero)
  nms_is_box = Unsqueeze (nms_is_there, nms_two)
  boxes = Where (nms_is_box, {final_boxes}, nms_zero)
  scores = Where (nms_is_there, nms_best, nms_zero)
  labels = Where (nms_is_there, nms_label, nms_nobody)
}}
"""

# PAA's score voting: a kept box becomes the mean of the candidates b of its class with
# an IoU above 0.01, weighted by score · exp(-(1 - IoU)² / 0.025).
VOTING = """
  vote_three = Constant <value_ints: ints = [3]> ()
  vote_one = Constant <value_float: float = 1.0> ()
  vote_least = Constant <value_float: float = 0.01> ()
  vote_width = Constant <value_float: float = -0.025> ()
  vote_tiny = Constant <value_float: float = 0.000001> ()

  vote_kept = Unsqueeze (nms_best_boxes, nms_two)
  vote_all = Unsqueeze (nms_boxes, nms_one)
  vote_x1, vote_y1, vote_x2, vote_y2 = Split <axis: int = 3> (vote_kept)
  vote_u1, vote_v1, vote_u2, vote_v2 = Split <axis: int = 3> (vote_all)
  vote_left = Max (vote_x1, vote_u1)
  vote_right = Min (vote_x2, vote_u2)
  vote_top = Max (vote_y1, vote_v1)
  vote_bottom = Min (vote_y2, vote_v2)
  vote_common_w = Sub (vote_right, vote_left)
  vote_common_h = Sub (vote_bottom, vote_top)
  vote_common_w0 = Max (vote_common_w, nms_zero)
  vote_common_h0 = Max (vote_common_h, nms_zero)
  vote_common = Mul (vote_common_w0, vote_common_h0)
  vote_kept_w = Sub (vote_x2, vote_x1)
  vote_kept_h = Sub (vote_y2, vote_y1)
  vote_kept_area = Mul (vote_kept_w, vote_kept_h)
  vote_all_w = Sub (vote_u2, vote_u1)
  vote_all_h = Sub (vote_v2, vote_v1)
  vote_all_area = Mul (vote_all_w, vote_all_h)
  vote_areas = Add (vote_kept_area, vote_all_area)
  vote_union = Sub (vote_areas, vote_common)
  vote_union0 = Max (vote_union, vote_tiny)
  vote_iou = Div (vote_common, vote_union0)

  vote_label = Unsqueeze (nms_label, nms_two)
  vote_scores = GatherND <batch_dims: int = 1> (nms_class_scores, vote_label)
  vote_scores0 = Max (vote_scores, nms_zero)
  vote_column = Unsqueeze (vote_scores0, vote_three)
  vote_gap = Sub (vote_one, vote_iou)
  vote_square = Mul (vote_gap, vote_gap)
  vote_power = Div (vote_square, vote_width)
  vote_factor = Exp (vote_power)
  vote_weight = Mul (vote_factor, vote_column)
  vote_is_near = Greater (vote_iou, vote_least)
  vote_near = Where (vote_is_near, vote_weight, nms_zero)
  vote_weights = Squeeze (vote_near, vote_three)
  vote_sum = MatMul (vote_weights, nms_boxes)
  vote_total = ReduceSum (vote_weights, nms_two)
  vote_boxes = Div (vote_sum, vote_total)
"""


def append_suppression(
    model: onnx.ModelProto, test_cfg: ConfigDict, votes: bool = False
) -> onnx.ModelProto:
    """Append suppression and padding to a model that returns candidates.

    Args:
        model: Its outputs are boxes (N, M, 4) and scores (N, M, C); a box with a score
            that is not above 0 is no candidate for that class.
        test_cfg: The head's, with ``nms.iou_threshold`` and ``max_per_img``.
        votes: Whether PAA's score voting moves the boxes that are kept.

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
        voting=VOTING if votes else '',
        final_boxes='vote_boxes' if votes else 'nms_best_boxes',
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
