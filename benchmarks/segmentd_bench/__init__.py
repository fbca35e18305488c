"""The benchmark command `segmentd-bench`: sizes a machine, compares, and watches latency under load."""
