"""The generated block of docs/analysis.md."""

import re

import cv2
import pytest

from tests.support.analysis import write_random_analysis
from tools.dev.docs import analysis_page


@pytest.mark.docs
def test_write_block_replaces_the_block_and_copies_its_pictures(tmp_path):
    folder = tmp_path / 'analysis'
    folder.mkdir()
    summaries = write_random_analysis(folder)
    page = tmp_path / 'page.md'
    page.write_text(
        'before\n<!-- analysis:begin -->\nstale\n<!-- analysis:end -->\nafter'
    )
    analysis_page.write_block(summaries, folder, page, 'the command')
    written = page.read_text()
    assert written.startswith('before\n')
    assert written.endswith('\nafter')
    assert 'stale' not in written
    assert '`the command`: 12 images' in written
    pictures = re.findall(r'<img src="([^"]+)" alt="[^"]+"', written)
    pictures += re.findall(r'!\[[^\]]+\]\(([^)]+)\)', written)
    assert len(pictures) == 8  # six charts, and a case of each model with anchors
    for picture in pictures:
        assert cv2.imread(str(tmp_path / picture)) is not None
    page.write_text('no marks')
    with pytest.raises(ValueError, match='needs the lines <!-- analysis:begin'):
        analysis_page.write_block(summaries, folder, page, 'the command')
