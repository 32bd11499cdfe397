"""The pages: links lead somewhere, generated ones are up to date, recipes build."""

import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config

import mmdet_consistent
from tools.dev.docs import generated
from tools.dev.docs import site as docs

ROOT = Path(__file__).resolve().parents[3]
RECIPES = re.findall(
    r'```python\n(model = .*?)```', (ROOT / 'docs/recipes.md').read_text(), re.DOTALL
)


def test_links_lead_somewhere():
    assert docs.broken_links() == []


@pytest.mark.slow
def test_the_pages_build_without_a_warning(tmp_path):
    command = ['-m', 'mkdocs', 'build', '--strict', '--quiet', '--site-dir', tmp_path]
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=dict(os.environ, NO_MKDOCS_2_WARNING='1'),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    options = (tmp_path / 'options/index.html').read_text()
    for name in ('ConsistentRetinaHead', 'SecondPassAssigner', 'CocoIoUMetric'):
        assert name in options
    assert 'stage_loss_weights' in options, 'arguments come from the docstrings'


def test_the_readmes_figures_of_the_paper_are_the_papers():
    rows = json.loads((ROOT / 'configs/paper_tables.json').read_text())
    by_setting = {}
    for row in rows:
        if row['table'] in (4, 5):
            s = row['settings']
            side = 'SSD512' if s['detector'] == 'SSD512' else s['short_side']
            pair = by_setting.setdefault((s['backbone'], side), {})
            pair[s['variant']] = row['metrics']['AP']
    expected = {f'{p["baseline"]} → {p["consistent"]}' for p in by_setting.values()}
    text = (ROOT / 'README.md').read_text()
    assert set(re.findall(r'\d+\.\d → \d+\.\d', text)) == expected
    assert '*not run here*' in text


def test_a_broken_link_is_found(tmp_path, monkeypatch):
    (tmp_path / 'docs').mkdir()
    (tmp_path / 'README.md').write_text(
        '# One\n[a](docs/no.md) [b](#one) [c](#two)\n```\n[d](code.md)\n```\n'
    )
    monkeypatch.setattr(docs, 'ROOT', tmp_path)
    monkeypatch.setattr(docs, 'DOCS', tmp_path / 'docs')
    assert docs.broken_links() == [
        'README.md: docs/no.md is not there',
        'README.md: #two has no such heading',
    ]


def test_the_model_zoo_is_up_to_date():
    assert (ROOT / 'docs/model_zoo.md').read_text() == docs.zoo()


@pytest.mark.parametrize('tool', ['docs.metafile', 'docs.readme', 'study.fine_tuning'])
def test_generated_files_are_up_to_date(tool, monkeypatch):
    monkeypatch.setattr(sys, 'argv', [tool, '--check'])
    runpy.run_module(f'tools.dev.{tool}', run_name='__main__')


def test_a_block_is_replaced_alone_and_refused_if_out_of_date(tmp_path):
    page = tmp_path / 'page.md'
    page.write_text('a\n<!-- x:begin -->\nold\n<!-- x:end -->\nb\n')
    new = generated.with_block(page, 'x', 'new')
    with pytest.raises(SystemExit, match='run the tool'):
        generated.write_or_check(page, new, True, 'run the tool')
    assert 'old' in page.read_text()
    generated.write_or_check(page, new, False, '')
    assert page.read_text() == 'a\n<!-- x:begin -->\nnew\n<!-- x:end -->\nb\n'
    generated.write_or_check(page, new, True, 'run the tool')
    with pytest.raises(SystemExit, match=r'y:begin .* are missing'):
        generated.with_block(page, 'y', 'new')


def test_every_config_of_the_paper_is_in_the_zoo_with_its_label():
    page = docs.zoo()
    assert 'not run here' in page
    for row in docs.paper_rows():
        assert f'(../{row["config"]})' in page


def test_every_page_is_in_the_navigation():
    pages = {path.name for path in (ROOT / 'docs').glob('*.md')}
    listed = set(re.findall(r'- (\w+\.md)', (ROOT / 'mkdocs.yml').read_text()))
    assert pages == listed


@pytest.mark.parametrize('recipe', RECIPES, ids=range(len(RECIPES)))
def test_recipes_build(recipe, tmp_path):
    register_all_modules()
    base = "_base_ = 'mmdet_consistent::con_retinanet_r50_fpn.py'\n"
    (tmp_path / 'recipe.py').write_text(base + recipe)
    model = Config.fromfile(tmp_path / 'recipe.py').model
    model.backbone.init_cfg = None
    head = MODELS.build(model).bbox_head
    assert isinstance(head, mmdet_consistent.ConsistentRetinaHead)


def test_there_are_recipes():
    assert len(RECIPES) > 6
