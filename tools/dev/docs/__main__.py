"""Write every generated page, and check that no link is broken.

Example:
    python -m tools.dev.docs            # write what is out of date, check the links
    python -m tools.dev.docs --check    # write nothing, fail if a page is out of date
    python -m tools.dev.docs --build    # the same as the first, then build site/
    python -m tools.dev.docs --translated    # after an update of the Chinese pages
    python -m mkdocs serve              # read the pages while writing
"""

import argparse
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from functools import partial

from mmdet_consistent.utils import atomic
from tools.dev import ROOT, operators
from tools.dev.study.report import page_from_csv

from . import (
    checks,
    detectors,
    gpu_page,
    metafile,
    model_zoo,
    readme,
    translations,
    works_with,
)
from .blocks import with_block
from .links import broken_links

COMMAND = 'python -m tools.dev.docs'
# Path, or path#block where only a block of the page is generated, to its renderer.
GENERATED: dict[str, Callable[[], str]] = {
    'README.md#study': readme.study_table,
    'README_zh-CN.md#study': partial(readme.study_table, translations.WORDS),
    'configs/metafile.yml': metafile.metafile,
    'model-index.yml': metafile.model_index,
    'docs/checks.md': checks.page,
    'docs/choosing.md#detectors': detectors.table,
    'docs/model_zoo.md': model_zoo.page,
    'docs/results/gpu.md': gpu_page.page,
    'docs/results/operators.md': operators.page,
    'docs/works_with.md': works_with.page,
    **{
        f'docs/results/{path.stem}.md': partial(page_from_csv, path)
        for path in sorted(ROOT.glob('docs/results/*.csv'))
        if not path.stem.startswith(
            ('speed', 'gpu')
        )  # those pages show more than their CSV
    },
}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument('--check', action='store_true', help='write nothing')
    what.add_argument('--build', action='store_true', help='build the site as well')
    what.add_argument(
        '--translated',
        action='store_true',
        help='record that the Chinese pages are in step with the English ones',
    )
    return parser.parse_args()


def changed_pages() -> dict[str, str]:
    """Return the pages that are out of date: path to the new text."""
    changed = {}
    for key, render in GENERATED.items():
        path, _, block = key.partition('#')
        file = ROOT / path
        old = file.read_text(encoding='utf-8') if file.is_file() else ''
        new = with_block(old, block, render()) if block else render()
        if new != old:
            changed[path] = new
    return changed


def build_site() -> None:
    """Build the pages of docs/ into site/; a warning is an error."""
    command = [sys.executable, '-m', 'mkdocs', 'build', '--strict', '--quiet']
    # Silences an advertisement of the theme's that --quiet lets through.
    env = dict(os.environ, NO_MKDOCS_2_WARNING='1')
    if subprocess.run(command, cwd=ROOT, env=env).returncode:
        sys.exit('mkdocs could not build the site, see above')
    print(f'built {ROOT / "site/index.html"}')


def main() -> None:
    args = parse_args()
    warnings.filterwarnings('ignore')
    problems = []
    for path, text in changed_pages().items():
        if args.check:
            problems.append(f'{path} is out of date: run {COMMAND}')
        else:
            atomic.write(ROOT / path, text.encode())
            print(f'wrote {path}')
    if args.translated:
        translations.record()
    problems += broken_links() + translations.out_of_step()
    if problems:
        sys.exit('\n'.join(problems))
    if args.build:
        build_site()


if __name__ == '__main__':
    main()
