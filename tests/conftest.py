"""Tests run our sources, whatever has been compiled, unless they are told otherwise: some replace parts of modules."""

import os

os.environ.setdefault("SWARM_NATIVE", "0")
