"""The agents' store against others: ``swarm bench storage``."""
