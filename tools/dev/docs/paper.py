"""Rows of the paper's tables, from configs/paper_tables.json."""

import json

from tools.dev import ROOT


def paper_rows() -> list[dict]:
    """Return one entry per row: table, row, config, split, settings and metrics."""
    return json.loads((ROOT / 'configs/paper_tables.json').read_text(encoding='utf-8'))
