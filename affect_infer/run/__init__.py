"""The run: where each input comes from, the loop, its results and its report."""
