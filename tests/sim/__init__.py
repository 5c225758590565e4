"""The lane in a hostile world, every bit of it from one seed: `python -m tests.sim --help`."""

from protocol.native import search_path

__path__ = search_path(__name__, __path__)
