"""shmexec."""
