"""The command line: the only place that reads arguments, prints, and decides exit codes.

Each command is a function of its options. Its docstring and its annotations are the help text, and `app` gives it its
name. It calls the function of `pipeline` that does the work, and prints the result. What it needs is imported when it
runs, so that the help appears at once.
"""
