"""Settings of a run: what a file and the command line say, checked before anything is loaded."""
