"""From findings to files that train, predict or ask again."""
