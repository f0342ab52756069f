"""Where tests find the checkout, its reference run and the adapters that misbehave."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
REFERENCE = ROOT / "results" / "reference"
ADAPTERS = ROOT / "tests" / "adapters"
