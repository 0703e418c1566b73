"""A server that segments the scans that are sent to it: its limits, its queue, its answers and its page."""
