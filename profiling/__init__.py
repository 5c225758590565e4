"""Stages, spans and honest reports. Everyone may import ``profiling.span``; this room imports none of the others."""
