"""Arrays in, arrays out: tiling, features, forest, decisions. No clock, no disk, no threads."""
