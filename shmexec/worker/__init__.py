"""The child process: how it comes up, runs calls, and ends."""
