"""Turns of the threads that read files by ITK.

ITK's readers share what none of them guards: the one for NIfTI and Analyze a string with the name of the last file,
those for HDF5 and MINC a library that knows no threads. Two threads that read at once damage the memory of the process,
rarely, and it ends later at any place. So one reads at a time; formats that people use are read without ITK.
"""

import threading

ITK_READING = threading.Lock()
"""Held by the thread that reads a file by SimpleITK."""
