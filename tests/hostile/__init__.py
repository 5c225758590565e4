"""A hostile peer on the real wire: `python -m tests.hostile --seed 1 --steps 200`."""
