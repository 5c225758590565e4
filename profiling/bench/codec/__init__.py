"""The wire forms against others: ``swarm bench codec``."""
