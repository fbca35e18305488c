"""The command `segmentd`: one module for each subcommand, light to import."""
