"""Jobs for many machines: a graph of commands as data, the scripts of each scheduler, and the state of each job."""
