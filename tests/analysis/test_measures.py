"""Each measure against a case computed by hand."""

import sys

import numpy as np
import pytest
from scipy.stats import rankdata

from mmdet_consistent.analysis import measures
from mmdet_consistent.analysis.matching import (
    greedy_match,
    match_detections,
    pairwise_iou,
)
from tests.support.analysis import table, truth_of


def test_pairwise_iou_of_boxes_and_crowds():
    boxes = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 20, 30]])
    # 50 shared of 150; a box without area overlaps nothing.
    expected = [[1, 1 / 3, 0], [1 / 3, 1, 0], [0, 0, 0]]
    np.testing.assert_allclose(pairwise_iou(boxes, boxes), expected)
    # Of a crowd region only the detection's own area counts.
    np.testing.assert_allclose(pairwise_iou(boxes[:1], boxes[1:2], crowd=True), 0.5)


@pytest.mark.parametrize(
    ('iou', 'match'),
    [
        # The second would prefer object 0, which the first has taken.
        ([[0.8, 0.6], [0.9, 0.7]], [0, 1]),
        # 0.4 does not reach the threshold.
        ([[0.8, 0.0], [0.9, 0.4]], [0, -1]),
        # Of two equal ones COCO takes the later.
        ([[0.7, 0.7], [0.7, 0.7]], [1, 0]),
        (np.zeros((2, 0)), [-1, -1]),
    ],
)
def test_greedy_match_lets_best_scores_choose_first(iou, match):
    assert greedy_match(np.array(iou), 0.5).tolist() == match


def split():
    """Match a true positive, a duplicate, two false positives and one on a crowd."""
    truth = truth_of(
        [(1, 0, 0, 0, 10, 10), (1, 0, 50, 0, 60, 10), (1, 0, 100, 100, 150, 150)],
        crowd={2},
    )
    detections = table(
        [
            (1, 0, 0.9, 0, 0, 10, 8),  # IoU 0.8 with the first: found
            (1, 0, 0.8, 0, 0, 10, 10),  # IoU 1.0, but a duplicate
            (1, 0, 0.4, 50, 0, 60, 4),  # IoU 0.4: not enough
            (1, 0, 0.3, 80, 0, 90, 10),  # nothing there
            (1, 0, 0.7, 110, 110, 120, 120),  # inside the crowd: not counted
        ]
    )
    return match_detections(detections, truth, [1])


def test_match_detections_of_a_split():
    matched = split()
    assert matched.found.tolist() == [True, False, False, False, False]
    assert matched.ignored.tolist() == [False, False, False, False, True]
    np.testing.assert_allclose(matched.iou, [0.8, 1.0, 0.4, 0, 0])
    np.testing.assert_allclose(matched.found_iou, [0.8, 0, 0, 0, 0])
    assert matched.num_objects.tolist() == [2]


def test_binned_computes_weighted_mean_and_spread():
    x = np.array([0.0, 0.1, 0.5, 1.0])
    y = np.array([1.0, 3.0, 5.0, 9.0])
    # Bins [0, 0.5) and [0.5, 1]: 1 and 3; 5 and 9.
    result = measures.binned(x, y, num_bins=2)
    np.testing.assert_allclose(result.centers, [0.25, 0.75])
    np.testing.assert_allclose(result.mean, [2, 7])
    np.testing.assert_allclose(result.std, [1, 2])
    # The second stands for three: mean (1 + 3·3) / 4, variance (2.25 + 3·0.25) / 4.
    result = measures.binned(x[:2], y[:2], np.array([1.0, 3.0]), num_bins=2)
    np.testing.assert_allclose(result.mean, [2.5, np.nan])
    np.testing.assert_allclose(result.std, [np.sqrt(0.75), np.nan])
    np.testing.assert_allclose(result.weight, [4, 0])


def test_bin_index_puts_an_edge_into_the_upper_bin():
    edges = np.arange(1, 20) / 20
    expected = np.arange(1, 20)
    assert measures.bin_index(edges, 20).tolist() == expected.tolist()
    single = edges.astype(np.float32)
    assert measures.bin_index(single, 20).tolist() == expected.tolist()
    assert measures.bin_index(np.array([0.0, 1.0]), 20).tolist() == [0, 19]
    # A few units in the last place below the edge, as an IoU in single precision.
    below = (np.arange(1, 100) / 100).astype(np.float32) * np.float32(1 - 2e-7)
    assert measures.bin_index(below, 100).tolist() == list(range(1, 100))


def test_spearman_correlates_ranks_and_is_nan_for_constants():
    # One swap of neighbours among four: 1 - 6·2 / (4·15) = 0.8.
    assert measures.spearman(np.arange(4), np.array([1, 2, 4, 3])) == pytest.approx(0.8)
    rng = np.random.default_rng(0)
    x = rng.integers(0, 5, 50)  # with ties
    y = x + rng.normal(size=50)
    expected = np.corrcoef(rankdata(x), rankdata(y))[0, 1]
    assert measures.spearman(x, y) == pytest.approx(expected)
    assert np.isnan(measures.spearman(np.ones(3), np.arange(3)))


def test_spearman_without_scipy_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, 'scipy.stats', None)
    with pytest.raises(ImportError, match=r'pip install .mmdet_consistent\[analysis\]'):
        measures.spearman(np.arange(3), np.arange(3))


def test_reliability_compares_score_precision_and_iou():
    score, precision, quality = measures.reliability(split(), num_bins=2)
    # Below 0.5: scores 0.4 and 0.3, none right. From 0.5: 0.9 and 0.8, one right.
    np.testing.assert_allclose(score.mean, [0.35, 0.85])
    np.testing.assert_allclose(precision.mean, [0, 0.5])
    np.testing.assert_allclose(quality.mean, [0, 0.4])
    assert score.weight.tolist() == [2, 2]


def test_laece_equals_the_value_computed_by_hand():
    # |0.35 − 0| for two, |0.85 − 0.5·0.8| for two: (2·0.35 + 2·0.45) / 4.
    assert measures.laece(split(), num_bins=2) == pytest.approx(0.4)


def test_optimal_lrp_equals_the_value_computed_by_hand():
    # Three objects; scores fall. Thresholds, one after the other:
    #   right 0.8:  (0.2/0.5 + 0 + 2) / 3             = 0.8
    #   wrong:      (0.4 + 1 + 2) / 4                 = 0.85
    #   right 0.9:  (0.4 + 0.1/0.5 + 1 + 1) / 4       = 0.65
    #   wrong:      (0.6 + 2 + 1) / 5                 = 0.72
    result = measures.optimal_lrp(
        np.array([0.9, 0.8, 0.7, 0.6]),
        np.array([True, False, True, False]),
        np.array([0.8, 0.0, 0.9, 0.0]),
        3,
    )
    assert result.lrp == pytest.approx(0.65)
    assert result.localisation == pytest.approx(0.15)
    assert result.false_positive == pytest.approx(1 / 3)
    assert result.false_negative == pytest.approx(1 / 3)
    assert result.threshold == pytest.approx(0.7)


def test_optimal_lrp_keeps_equal_scores_together():
    # Without the wrong one of the same score the error would be (0 + 0) / 1.
    result = measures.optimal_lrp(
        np.array([0.5, 0.5]), np.array([True, False]), np.array([1.0, 0.0]), 1
    )
    assert result.lrp == pytest.approx(0.5)


def test_optimal_lrp_without_detections_or_objects():
    none = np.zeros(0)
    assert measures.optimal_lrp(none, none.astype(bool), none, 2).lrp == 1
    assert np.isnan(measures.optimal_lrp(none, none.astype(bool), none, 0).lrp)


def test_average_precision_equals_the_value_computed_by_hand():
    # Precision 1 to recall 0.5 (51 of 101 points), then 2/3 (50 points).
    ap = measures.average_precision(
        np.array([0.9, 0.8, 0.7]), np.array([True, False, True]), 2
    )
    assert ap == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert measures.average_precision(np.zeros(0), np.zeros(0, bool), 3) == 0
