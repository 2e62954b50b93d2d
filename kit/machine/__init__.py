"""The machine: what it has, how busy it is, what it lacks, and where a result comes from."""
