"""Programs for maintainers; README.md lists them."""

from pathlib import Path

import mmdet_consistent  # noqa: F401  # provides mmcv's operators to mmdet

ROOT = Path(__file__).resolve().parents[2]
