"""Storage: everything on disk, one file per noun.  `reader` is copied alone into other environments."""
