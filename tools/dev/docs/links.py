"""Links in the Markdown files: a check, and the hook that adapts them for MkDocs.

MkDocs loads this file by its path, so it imports nothing from its package.
"""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PAGES = ('*.md', 'docs/**/*.md', 'examples/**/*.md', 'tools/**/*.md')
LINK = re.compile(r'(!?)\[([^\]]*)\]\(([^)\s]+)\)')
CODE = re.compile(r'^(```|~~~).*?^\1', re.MULTILINE | re.DOTALL)


def headings(text: str) -> dict[str, str]:
    """Return the headings of a page in their order: anchor to plain text."""
    titles = re.findall(r'^#+ (.+)$', CODE.sub('', text), re.MULTILINE)
    plain = [re.sub(r'[`*_]|\[([^\]]*)\]\([^)]*\)', r'\1', t) for t in titles]
    return {
        re.sub(r'[\s-]+', '-', re.sub(r'[^\w\s-]', '', t.lower())).strip('-'): t
        for t in plain
    }


def broken_links(root: Path = ROOT) -> list[str]:
    """List the relative links in Markdown files that lead to no file or heading."""
    broken = []
    for page in sorted({page for pattern in PAGES for page in root.glob(pattern)}):
        text = CODE.sub('', page.read_text(encoding='utf-8'))
        for _, _, link in LINK.findall(text):
            if re.match(r'\w+:', link):
                continue
            path, _, anchor = link.partition('#')
            target = (page.parent / path).resolve() if path else page
            if not target.exists():
                broken.append(f'{page.relative_to(root)}: {link} does not exist')
            elif anchor and anchor not in headings(target.read_text(encoding='utf-8')):
                broken.append(f'{page.relative_to(root)}: {link} is not a heading')
    return broken


def on_page_markdown(markdown: str, page, **_) -> str:
    """Replace links to files outside docs/ by their paths (a hook of MkDocs)."""
    folder = Path(page.file.abs_src_path).parent

    def replace(match: re.Match) -> str:
        image, text, link = match.groups()
        path = (folder / link.partition('#')[0]).resolve()
        inside = path.is_relative_to(ROOT / 'docs') and path.is_file()
        if image or re.match(r'\w+:|#', link) or inside:
            return match[0]
        name = str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else link
        return text if name in text else f'{text} (`{name}`)'

    return LINK.sub(replace, markdown)
