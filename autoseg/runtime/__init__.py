"""The base of long jobs: files written completely or not at all, locks, threads, devices, progress, units."""
