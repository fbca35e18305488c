"""`python -m segmentd_bench`."""

from segmentd_bench.cli import main

main()
