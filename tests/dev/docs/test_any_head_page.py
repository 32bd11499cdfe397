"""The tables of docs/any_head.md, against the code."""

import re
from pathlib import Path

import pytest

from mmdet_consistent import ConsistentMixin, make_consistent
from mmdet_consistent.heads.other.generic import CHAINING_PREDICT, GenericStages
from mmdet_consistent.heads.other.make_consistent import NAMED
from tests.support.other_heads import CONFIGS, heads

PAGE = Path(__file__).resolve().parents[3] / 'docs/any_head.md'
REFUSED_HEADS = {
    name: head
    for name, head in heads().items()
    if head not in NAMED and not issubclass(head, ConsistentMixin)
}

pytestmark = pytest.mark.docs


def table_rows(heading):
    """Return the cells of a section's table, by the head in the first column."""
    section = PAGE.read_text(encoding='utf-8').split(f'## {heading}\n')[1]
    section = section.split('\n## ')[0]
    lines = re.findall(r'^\| `(\w+)` \| (.+) \|$', section, re.MULTILINE)
    return {name: cells.split(' | ') for name, cells in lines}


def test_page_lists_every_named_head_with_its_config_and_decoding():
    expected = {}
    for base, kind in NAMED.items():
        composed = (
            issubclass(kind, GenericStages)
            and kind._predict_by_feat_single not in CHAINING_PREDICT
        )
        expected[base.__name__] = [
            f'`{kind.__name__}`',
            CONFIGS.get(base.__name__, ["an RPN's settings"])[0],
            'composed' if composed else 'chained',
        ]
    assert table_rows('Supported heads') == expected


def test_page_lists_every_refused_head_with_the_reason_in_the_error():
    rows = table_rows('Unsupported heads')
    assert rows.keys() == REFUSED_HEADS.keys()
    for name, [reason] in rows.items():
        message = f'{name} has no consistent version: {reason}'
        with pytest.raises(ValueError, match=f'^{re.escape(message)}$'):
            make_consistent(REFUSED_HEADS[name])
