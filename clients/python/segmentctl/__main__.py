"""`python -m segmentctl`."""

from __future__ import annotations

from segmentctl.cli import main

if __name__ == "__main__":
    main()
