"""``swarm bench dtw``: the kernels against their peers, the study's ladder, and the machine's own limit."""
