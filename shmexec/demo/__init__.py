"""The demonstration: one picture pipeline through two executors, measured side by side."""
