"""The lane in a hostile world, every bit of it from one seed: `python -m tests.sim --help`."""
