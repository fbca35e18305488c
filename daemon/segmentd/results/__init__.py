"""Segmentations to subscribers: durable files, the journal, and the feed that reads it."""
