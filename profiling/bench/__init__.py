"""Benchmark commands. They stand on top of everything and may import any room; nothing imports them but the CLI."""
