"""Pattern matching: dynamic time warping kernels, a library of past windows and exact nearest-neighbour search.

The room knows nothing of trading and imports numpy and numba only. Importing it sets numba's disk cache directory,
since that must be known before the first kernel is compiled; see ``dtw.cache``.
"""

from dtw.cache import configure_cache_directory

configure_cache_directory()
