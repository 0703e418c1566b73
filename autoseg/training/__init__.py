"""Learning the weights of one fold: losses, optimization, the loop over epochs, and the record of its progress."""
