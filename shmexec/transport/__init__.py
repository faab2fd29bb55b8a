"""Messages between the parent and its workers: what they are, and what carries them."""
