"""The benchmark suite: this package and its peers, side by side (`shmexec bench`)."""
