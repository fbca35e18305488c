"""`python -m segmentd` is the command `segmentd`."""

from __future__ import annotations

from segmentd.cli.main import main

if __name__ == "__main__":
    main()
