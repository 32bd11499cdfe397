import sys
from pathlib import Path

import pytest
from mmengine.registry import init_default_scope

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


@pytest.fixture(autouse=True)
def mmdets_scope():
    """Every test looks names up in mmdet, whatever the one before it left."""
    init_default_scope('mmdet')
