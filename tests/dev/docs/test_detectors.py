"""The table of docs/choosing.md."""

import pytest

from tools.dev.docs import detectors

pytestmark = pytest.mark.docs


def test_figures_are_those_that_mmdetection_publishes():
    published = dict(RetinaNet=36.5, ATSS=39.4, GFL=40.2, VFNet=41.6, TOOD=42.4)
    for name, ap in published.items():
        assert detectors.published_ap(detectors.DETECTORS[name]) == ap
    aps = [detectors.published_ap(config) for config in detectors.DETECTORS.values()]
    assert aps == sorted(aps)


def test_consistent_versions_are_named_where_they_exist():
    version = {
        name: detectors.consistent_version(detectors.DETECTORS[name])
        for name in ('RetinaNet', 'Faster R-CNN', 'TOOD')
    }
    assert version == {
        'RetinaNet': '`ConsistentRetinaHead`',
        'Faster R-CNN': '`ConsistentRPNHead`',
        'TOOD': '–',
    }
