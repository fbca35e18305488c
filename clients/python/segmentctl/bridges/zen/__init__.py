"""ZEN: its pixel stream goes through segmentd while an experiment runs."""
