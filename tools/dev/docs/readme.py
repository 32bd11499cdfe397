"""The study's main figures in README.md, from docs/results/*.csv."""

from typing import Optional

from mmdet_consistent.utils.tables import markdown_table
from tools.dev import ROOT
from tools.dev.study.numbers import summarise
from tools.dev.study.report import read_csv, signed

PAPER, RECOMMENDED = 'consistent', 'aligned + confidence'
# (title in the README, table of the study, row).
TABLES = (
    ('Aquarium, photos', 'photos_aquarium', PAPER),
    ('… recommended', 'photos_aquarium', RECOMMENDED),
    ('Blood cells, photos', 'photos_bccd_photos', PAPER),
    ('… recommended', 'photos_bccd_photos', RECOMMENDED),
    ('Crowds of shapes', 'normalizer_occlusion', 'first_normalizer'),
    ('… recommended (`stage`)', 'additions_occlusion', 'aligned_confident'),
    ('Blood cells, from scratch', 'normalizer_bccd', 'first_normalizer'),
    ('… recommended (`stage`)', 'additions_bccd', 'aligned_confident'),
    ('SSD, crowds of shapes', 'normalizer_ssd_occlusion', 'first_normalizer'),
    ('SSD, blood cells, from scratch', 'normalizer_ssd_bccd', 'first_normalizer'),
)


def study_table(words: Optional[dict[str, str]] = None) -> str:
    """Render AP of baseline and consistent, and their paired differences.

    Args:
        words: Translations of titles and of the header's words.
    """
    words = words or {}
    header = ['', 'baseline', 'consistent', 'ΔAP', 'ΔAP50', 'ΔAP75', 'seeds']
    header = [words.get(word, word) for word in header]
    lines = []
    for title, stem, row in TABLES:
        _, runs = read_csv(ROOT / f'docs/results/{stem}.csv')
        baseline, consistent = summarise(
            {name: runs[name] for name in ('baseline', row)}, 'baseline'
        )
        lines.append(
            [
                f'[{words.get(title, title)}](docs/results/{stem}.md)',
                *(f'{x.values["AP"].mean:.1f}' for x in (baseline, consistent)),
                *(signed(consistent.differences[m]) for m in ('AP', 'AP50', 'AP75')),
                str(consistent.differences['AP'].count),
            ]
        )
    return markdown_table(header, lines)
