"""Every command, once."""
