"""Programs for maintainers; README.md lists them."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
