"""Documents: links, generated pages, the site, and recipes that build."""

import json
import re
import sys
from pathlib import Path

import pytest
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config

import mmdet_consistent
from tools.dev.docs import __main__ as docs
from tools.dev.docs import model_zoo
from tools.dev.docs.blocks import with_block
from tools.dev.docs.links import broken_links
from tools.dev.docs.paper import paper_rows

ROOT = Path(__file__).resolve().parents[3]
RECIPES = re.findall(
    r'```python\n(model = .*?)```', (ROOT / 'docs/recipes.md').read_text(), re.DOTALL
)

pytestmark = pytest.mark.docs


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, 'argv', ['docs', *arguments])
    docs.main()


def test_documents_are_up_to_date_and_no_link_is_broken(monkeypatch):
    run(monkeypatch, '--check')


def test_check_names_an_outdated_page_and_writing_mends_it(monkeypatch, tmp_path):
    page = tmp_path / 'page.md'
    page.write_text('# A\n<!-- x:begin -->\nold\n<!-- x:end -->\nb\n')
    monkeypatch.setattr(docs, 'ROOT', tmp_path)
    monkeypatch.setattr(
        docs, 'GENERATED', {'page.md#x': lambda: 'new', 'made/new.yml': lambda: 'b'}
    )
    message = r'page\.md is out of date: run python -m tools\.dev\.docs\nmade/new\.yml'
    with pytest.raises(SystemExit, match=message):
        run(monkeypatch, '--check')
    assert 'old' in page.read_text()
    run(monkeypatch)
    assert page.read_text() == '# A\n<!-- x:begin -->\nnew\n<!-- x:end -->\nb\n'
    assert (tmp_path / 'made/new.yml').read_text() == 'b'
    run(monkeypatch, '--check')


def test_with_block_refuses_a_page_without_markers():
    with pytest.raises(ValueError, match='needs the lines <!-- y:begin -->'):
        with_block('<!-- x:begin -->\n<!-- x:end -->', 'y', 'new')


def test_broken_links_names_missing_files_and_headings(tmp_path):
    (tmp_path / 'README.md').write_text(
        '# One\n[a](docs/no.md) [b](#one) [c](#two)\n```\n[d](code.md)\n```\n'
    )
    assert broken_links(tmp_path) == [
        'README.md: docs/no.md does not exist',
        'README.md: #two is not a heading',
    ]


@pytest.mark.slow
def test_site_builds_without_a_warning_and_shows_docstrings(monkeypatch):
    run(monkeypatch, '--build')
    options = (ROOT / 'site/options/index.html').read_text()
    for name in ('ConsistentRetinaHead', 'SecondPassAssigner', 'CocoIoUMetric'):
        assert name in options
    assert 'stage_loss_weights' in options, 'arguments come from the docstrings'
    zoo = (ROOT / 'site/model_zoo/index.html').read_text()
    assert '<code>configs/con_retinanet_r50_fpn.py</code>' in zoo


def test_readme_shows_the_papers_figures():
    by_setting = {}
    for row in paper_rows():
        if row['table'] in (4, 5):
            s = row['settings']
            side = 'SSD512' if s['detector'] == 'SSD512' else s['short_side']
            pair = by_setting.setdefault((s['backbone'], side), {})
            pair[s['variant']] = row['metrics']['AP']
    expected = {f'{p["baseline"]} → {p["consistent"]}' for p in by_setting.values()}
    text = (ROOT / 'README.md').read_text()
    assert set(re.findall(r'\d+\.\d → \d+\.\d', text)) == expected
    assert '*not run here*' in text


def test_model_zoo_lists_every_config_and_labels_its_figures():
    page = model_zoo.page()
    assert page.count('*not run here*') >= 6
    for row in json.loads((ROOT / 'configs/paper_tables.json').read_text()):
        assert f'(../{row["config"]})' in page
        assert f'tools/dist_train.sh {row["config"]} ' in page
        for value in row['metrics'].values():
            assert f' {value} ' in page


def test_every_page_is_in_the_navigation():
    pages = {path.name for path in (ROOT / 'docs').glob('*.md')}
    listed = set(re.findall(r'- (\w+\.md)', (ROOT / 'mkdocs.yml').read_text()))
    assert pages == listed


@pytest.mark.parametrize('recipe', RECIPES, ids=range(len(RECIPES)))
def test_recipe_builds_a_consistent_head(recipe, tmp_path):
    register_all_modules()
    base = "_base_ = 'mmdet_consistent::con_retinanet_r50_fpn.py'\n"
    (tmp_path / 'recipe.py').write_text(base + recipe)
    model = Config.fromfile(tmp_path / 'recipe.py').model
    model.backbone.init_cfg = None
    head = MODELS.build(model).bbox_head
    assert isinstance(head, mmdet_consistent.ConsistentRetinaHead)


def test_recipes_are_found():
    assert len(RECIPES) > 6
