"""Python objects to bytes and block names, and back."""
