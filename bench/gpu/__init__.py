"""``make gpu``: everything that is wanted of a machine with an NVIDIA GPU, in one command that can be stopped."""
