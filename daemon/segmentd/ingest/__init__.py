"""From a folder to planes: which files are complete, what they hold, and their pixels."""
