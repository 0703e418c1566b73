"""Planning: decides from the fingerprint of a dataset how to segment it, in milliseconds, without torch or images."""
