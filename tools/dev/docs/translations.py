"""Chinese versions of pages: a check that they are in step with the English ones.

Code, figures and links are compared. What a program cannot compare, the sentences, is
remembered by section: ``translated.json`` has a hash of each English section as it was
when it was last translated.
"""

import hashlib
import json
import os
import re
from collections import Counter
from pathlib import Path

from tools.dev import ROOT

from .links import LINK

# English page to Chinese page.
PAGES = {
    'README.md': 'README_zh-CN.md',
    'docs/getting_started.md': 'docs/zh_cn/getting_started.md',
}
HASHES = Path('tools/dev/docs/translated.json')
COMMAND = 'python -m tools.dev.docs --translated'
CODE = re.compile(r'^```.*?^```', re.MULTILINE | re.DOTALL)
GENERATED = re.compile(r'<!-- (\w+):begin -->.*?<!-- \1:end -->', re.DOTALL)
# The words in the table of README.md.
WORDS = {
    'Aquarium, photos': '水族馆，照片',
    'Blood cells, photos': '血细胞，照片',
    'Crowds of shapes': '密集图形',
    'Blood cells, from scratch': '血细胞，从零训练',
    '… recommended': '……推荐的检测头',
    '… recommended (`stage`)': '……推荐的检测头（`stage`）',
    'SSD, crowds of shapes': 'SSD，密集图形',
    'SSD, blood cells, from scratch': 'SSD，血细胞，从零训练',
    'baseline': '基线',
    'consistent': '一致优化',
    'seeds': '种子数',
}


def out_of_step(root: Path = ROOT) -> list[str]:
    """List the differences between the English pages and their translations."""
    problems = []
    recorded = json.loads((root / HASHES).read_text(encoding='utf-8'))
    for english, chinese in PAGES.items():
        first, second = (
            (root / page).read_text(encoding='utf-8') for page in (english, chinese)
        )
        known = recorded.get(english, {})
        problems += [
            f'{english}: {title!r} has changed since it was translated: bring '
            f'{chinese} into step, then run {COMMAND}'
            for title, value in hashes(first).items()
            if known.get(title) != value
        ]
        for what, part in (('headings', levels), ('code', code), ('figures', figures)):
            problems += _differences(
                f'{chinese}: {what}', part(first), part(second), english
            )
        problems += _differences(
            f'{chinese}: links',
            links(first, english, root),
            links(second, chinese, root),
            english,
        )
    return problems


def record(root: Path = ROOT) -> None:
    """Record that the translations are in step with the English pages as they are."""
    content = {
        page: hashes((root / page).read_text(encoding='utf-8')) for page in PAGES
    }
    text = json.dumps(content, indent=1, ensure_ascii=False) + '\n'
    (root / HASHES).write_text(text, encoding='utf-8')


def hashes(text: str) -> dict[str, str]:
    """Return a hash of each section's sentences, without what is compared itself."""
    text = GENERATED.sub('', CODE.sub('', text))
    parts = re.split(r'^#+ (.+)$', text, flags=re.MULTILINE)[1:]
    return {
        title: hashlib.sha256(' '.join(body.split()).encode()).hexdigest()[:12]
        for title, body in zip(parts[::2], parts[1::2])
    }


def levels(text: str) -> list[str]:
    """Return the levels of the headings, in order."""
    return re.findall(r'^(#+) ', CODE.sub('', text), re.MULTILINE)


def code(text: str) -> list[str]:
    """Return the lines of code, without comments, in order."""
    lines = '\n'.join(CODE.findall(text)).splitlines()
    return [line for line in (re.sub(r'\s*# .*', '', n) for n in lines) if line]


def figures(text: str) -> Counter:
    """Return the decimal numbers with their signs, such as ``+0.7``."""
    return Counter(re.findall(r'[+−-]?\d+\.\d+', CODE.sub('', text)))


def links(text: str, page: str, root: Path = ROOT) -> set[str]:
    """Return where a page's links lead, in English: addresses, and paths from root."""
    english = {chinese: page for page, chinese in PAGES.items()}
    found = set()
    for _, _, link in LINK.findall(text):
        target = link.partition('#')[0]
        if target and not re.match(r'\w+:', target):
            target = os.path.normpath(Path(page).parent / target)
            target = english.get(target, target)
        found.add(target)
    return found - {'', *PAGES}


def _differences(what: str, first, second, english: str) -> list[str]:
    if first == second:
        return []
    if isinstance(first, list):
        pairs = zip([*first, None], [*second, None])
        a, b = next((a, b) for a, b in pairs if a != b)
    else:
        a, b = (sorted(x - y) for x, y in ((first, second), (second, first)))
    return [f'{what} differ from {english}: {a} there, {b} here']
