"""Build the pages of docs/ into site/, and check every link.

Example:
    python -m tools.dev.docs.site            # write generated pages, check, build
    python -m tools.dev.docs.site --check    # fail on old pages and broken links
    python -m mkdocs serve                   # read them while writing

Also MkDocs' hook: on the pages, links to files outside of docs/ become their paths,
and `<!-- results -->` a list of the pages in docs/results.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path

from .generated import write_or_check

ROOT = Path(__file__).resolve().parents[3]
DOCS = ROOT / 'docs'
LINK = re.compile(r'(!?)\[([^\]]*)\]\(([^)\s]+)\)')
CODE = re.compile(r'^(```|~~~).*?^\1', re.MULTILINE | re.DOTALL)

ZOO = """\
# Model zoo

<!-- Made by `python -m tools.dev.docs.site` from configs/paper_tables.json. -->

A config for every row of the paper's tables. AP is **the paper's**, on COCO,
***not run here***: no weights are published. What was measured here, in small models
on small data, is in [the study](study.md) and its [results](results).

<!-- results -->

Any row's name is enough: `_base_ = 'mmdet_consistent::NAME.py'`
([how](downstream.md)). [paper.md](paper.md) has every figure of every table and the
command to train it.

{tables}"""


def paper_rows() -> list:
    """The rows of configs/paper_tables.json, one a config."""
    rows = json.loads((ROOT / 'configs/paper_tables.json').read_text(encoding='utf-8'))
    return list({row['config']: row for row in rows}.values())


def zoo_table(detector: str) -> str:
    """Markdown of the configs of one detector."""
    head = ['config', 'backbone', 'short side', 'variant', '#cls, #reg']
    head += ['μ_pos / μ_neg', 'epochs', 'images a step', 'AP in the paper']
    lines = [head, ['---'] * len(head)]
    for row in paper_rows():
        settings = row['settings']
        if settings['detector'] != detector:
            continue
        jitter = ', jitter' if settings['scale_jitter'] else ''
        side = f'{settings["short_side"]}{jitter}' if settings['short_side'] else '512²'
        name = row['config'].removeprefix('configs/')
        lines.append(
            [
                f'[{name.removesuffix(".py")}](../{row["config"]})',
                settings['backbone'],
                side,
                settings['variant'],
                f'{settings["label_stages"]}, {settings["reg_stages"]}',
                '; '.join(f'{p} / {n}' for p, n in settings['thresholds']) or '–',
                str(settings['epochs']),
                str(settings['images_per_batch']),
                f'{row["metrics"]["AP"]} ({row["split"]})',
            ]
        )
    return '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines)


def zoo() -> str:
    """Text of docs/model_zoo.md."""
    detectors = list(dict.fromkeys(r['settings']['detector'] for r in paper_rows()))
    tables = [f'## {name}\n\n{zoo_table(name)}\n' for name in detectors]
    return ZOO.format(tables='\n'.join(tables))


def results() -> str:
    """A list of the pages of docs/results, by their titles."""
    lines = []
    for path in sorted(DOCS.glob('results/*.md')):
        title = path.read_text(encoding='utf-8').splitlines()[0].lstrip('# ')
        lines.append(f'- [{title}](results/{path.name})')
    return '\n'.join(lines)


def anchors(text: str) -> set:
    """The anchors of a page's headings."""
    titles = re.findall(r'^#+ (.+)$', CODE.sub('', text), re.MULTILINE)
    plain = [re.sub(r'[`*_]|\[([^\]]*)\]\([^)]*\)', r'\1', t).lower() for t in titles]
    return {
        re.sub(r'[\s-]+', '-', re.sub(r'[^\w\s-]', '', t)).strip('-') for t in plain
    }


def broken_links() -> list:
    """Relative links of every Markdown file that lead to no file or heading."""
    pages = [*ROOT.glob('*.md'), *DOCS.rglob('*.md'), *ROOT.glob('examples/**/*.md')]
    broken = []
    for page in pages:
        for _, _, target in LINK.findall(
            CODE.sub('', page.read_text(encoding='utf-8'))
        ):
            if re.match(r'\w+:', target):
                continue
            path, _, anchor = target.partition('#')
            there = page if not path else (page.parent / path).resolve()
            if not there.exists():
                broken.append(f'{page.relative_to(ROOT)}: {target} is not there')
            elif anchor and anchor not in anchors(there.read_text(encoding='utf-8')):
                broken.append(f'{page.relative_to(ROOT)}: {target} has no such heading')
    return broken


def on_page_markdown(markdown: str, page, **_) -> str:
    """MkDocs' hook: a list of results, and paths for links to outside of docs/."""
    folder = Path(page.file.abs_src_path).parent

    def replace(match: re.Match) -> str:
        image, text, target = match.groups()
        path = (folder / target.partition('#')[0]).resolve()
        inside = path.is_relative_to(DOCS) and path.is_file()
        if image or re.match(r'\w+:|#', target) or inside:
            return match[0]
        name = str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else target
        return text if name in text else f'{text} (`{name}`)'

    return LINK.sub(replace, markdown.replace('<!-- results -->', results()))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--check', action='store_true', help='write and build nothing')
    args = parser.parse_args()
    refusal = 'docs/model_zoo.md is out of date: run python -m tools.dev.docs.site'
    write_or_check(DOCS / 'model_zoo.md', zoo(), args.check, refusal)
    broken = broken_links()
    if broken:
        sys.exit('\n'.join(broken))
    if not args.check:
        command = [sys.executable, '-m', 'mkdocs', 'build', '--strict', '--quiet']
        # (An advertisement of the theme's, which --quiet lets through.)
        env = dict(os.environ, NO_MKDOCS_2_WARNING='1')
        if subprocess.run(command, cwd=ROOT, env=env).returncode:
            sys.exit('mkdocs: see above')
        print(f'the pages: {ROOT / "site/index.html"}')


if __name__ == '__main__':
    main()
