"""Measurements as records, on disk, and read back as one frame."""
