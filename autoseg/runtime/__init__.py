"""What long jobs need of the machine: files written whole, locks, threads, devices, progress, units."""
