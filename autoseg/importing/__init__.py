"""Bringing foreign data into the workspace: what a source is, which files belong together, what their masks hold."""
