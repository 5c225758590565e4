"""Real processes at full load, and their memory: `python -m tests.memory --seconds 600 --transport aioquic`."""
