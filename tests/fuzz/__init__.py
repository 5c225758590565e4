"""Mutated frames against both codecs and the framing: `python -m tests.fuzz --seed 1 --frames 1000000`."""
