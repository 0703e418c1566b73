"""Deciding how to segment a dataset from its facts alone: no image is opened, and nothing runs longer than a blink."""
