"""Other libraries' DTW, run in an environment of their own: ``client.py`` is our side, the rest runs on theirs."""
