"""`python -m medsegdiff_bundle`, which is `medsegdiff` where its scripts are not on the path."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from medsegdiff_bundle import cli


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command, see `medsegdiff_bundle.cli.main`."""
    return cli.main(arguments, "python -m medsegdiff_bundle")


if __name__ == "__main__":
    sys.exit(main())
