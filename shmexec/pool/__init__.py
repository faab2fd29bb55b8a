"""The parent process: which call goes to which worker, and what comes back."""
