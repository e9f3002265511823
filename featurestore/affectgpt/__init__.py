"""What people already have: trees of `.npy` folders, in and out, and the guide's YAML files."""
