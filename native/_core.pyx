# cython: language_level=3, boundscheck=False, wraparound=False
"""shmexec._core: the thin skin over native/*.c. One part per concept; the C holds the algorithms."""
